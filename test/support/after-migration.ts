/**
 * Asserts what holds after every migration, however it ended: there is one guest, whole and alive, and no trace of it
 * elsewhere.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Test } from "tap";
import { logPipe, olderLog, qemuLogPath } from "../../shared/runtime/guest/guest-log.ts";
import { eventually } from "./bounded.ts";
import { guestFiles } from "./guest.ts";
import type { Rig, RigHost } from "./rig.ts";
import type { FoundProcess } from "./running-processes.ts";

const ALIVE = { timeoutMs: 30_000 };
const BEATS = 10;
/**
 * How long the host without the guest may take to tidy up, milliseconds. It tidies up after the operator was told how
 * the migration ended.
 */
const TIDY_MS = 10_000;

export interface Whereabouts {
  readonly name: string;
  /** The host at which the guest must run now. */
  readonly at: RigHost;
  /** Further files that both runtime directories may have. @default nothing */
  readonly beside?: readonly string[];
}

/**
 * Asserts that exactly one QEMU of the guest runs, that the guest goes on and finds its memory whole, and that the
 * other host has only logs and journals.
 */
export async function assertOneGuest(t: Test, rig: Rig, { name, at, beside = [] }: Whereabouts): Promise<void> {
  const other = rig.other(at);
  const files = guestFiles(name);
  const beat = await rig.serial(at, name).waitForBeats(BEATS, ALIVE);
  t.equal(beat.errors, 0, `${name} beats on at ${at.name} and finds no error`);
  for (const host of [at, other])
    t.same(rig.serial(host, name).corruptions(), [], `nothing corrupt seen on ${host.name}`);
  await settled(
    () => processesOf(rig, other, name).length === 0 && leftFiles(other, [files.serial, ...beside]).length === 0,
  );
  t.same(
    processesOf(rig, at, name).map(({ command }) => command.includes(at.runtimeDirectory)),
    [true],
    `one QEMU of ${name} runs at ${at.name}`,
  );
  t.same(processesOf(rig, other, name), [], `no QEMU of ${name} is left at ${other.name}`);
  t.same(leftFiles(other, [files.serial, ...beside]), [], `no socket or file of ${name} is left at ${other.name}`);
  const living = [files.serial, files.qmp, files.observer, ...logFiles(name), ...beside];
  t.same(leftFiles(at, living), [], `only the running guest's files are at ${at.name}`);
  for (const host of [at, other])
    t.same(
      stateFiles(host).filter((file) => !/^(source|destination)\/\w+\.json$/.test(file)),
      [],
      `only journals in the state directory of ${host.name}`,
    );
}

/** The files that there may be of the output of a QEMU that an agent started. */
export const logFiles = (name: string): readonly string[] => {
  const log = qemuLogPath(name, "");
  return [log, olderLog(log), logPipe(log)];
};

/** Ends the rig, and makes sure that nothing of it is left. @throws Error when something is */
export async function closeRig(rig: Rig): Promise<void> {
  await rig.close();
  await rig.assertNothingLeft();
}

/** The guest's QEMUs on a host. */
export function processesOf(rig: Rig, host: RigHost, name: string): FoundProcess[] {
  return rig.qemus().filter((one) => one.command.includes(` -name ${name} `) && rig.isOn(host, one));
}

/** Files by which an agent keeps other agents from its runtime directory (shared/runtime/files/agent-lock.ts). */
const LOCKS: readonly string[] = [".source.lock", ".destination.lock"];

/** Lists the files in a host's runtime directory that may not be there. */
export function leftFiles(host: RigHost, allowed: readonly string[]): string[] {
  return readdirSync(host.runtimeDirectory).filter((file) => !allowed.includes(file) && !LOCKS.includes(file));
}

/** Lists the files in the directory of a guest with a user of its own that may not be there. */
export function leftInGuestDirectory(host: RigHost, name: string, allowed: readonly string[]): string[] {
  const directory = host.guestDirectory(name);
  return existsSync(directory) ? readdirSync(directory).filter((file) => !allowed.includes(file)) : [];
}

/** Lists the files that both agents of a host keep: source/ID.json, destination/ID.json. */
export function stateFiles(host: RigHost): string[] {
  const kinds = ["source", "destination"].filter((kind) => existsSync(join(host.stateDirectory, kind)));
  return kinds.flatMap((kind) => readdirSync(join(host.stateDirectory, kind)).map((file) => `${kind}/${file}`));
}

/** Waits until the host is tidy, or for TIDY_MS; the assertions that follow say what is wrong. */
async function settled(tidy: () => boolean): Promise<void> {
  const ask = (): true | undefined => (tidy() ? true : undefined);
  await eventually(ask, { timeoutMs: TIDY_MS, what: "the other host to be tidy" }).catch(() => undefined);
}
