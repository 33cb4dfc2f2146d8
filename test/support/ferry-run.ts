/**
 * Measures a migration by `ferry` from outside, in the way in which QEMU's own migrations are measured: by events of
 * the monitors and counters of the interface.
 */
import type { MigrationView } from "../../shared/protocol/report.ts";
import type { QmpEvent } from "../../shared/qemu/qmp/qmp-types.ts";
import { ferryCommand, type HostAgents, listMigrations } from "./agents.ts";
import type { Rig } from "./rig.ts";

export interface FerryRun {
  readonly exitCode: number;
  /** From the agent's start of the migration to the guest's RESUME; 0 if the guest did not move. */
  readonly totalSeconds: number;
  /** From STOP to RESUME; undefined if the guest did not move. */
  readonly downtimeMs: number | undefined;
  readonly bytesOnWire: number;
  readonly view: MigrationView;
}

export interface FerryRunOptions {
  readonly from: HostAgents;
  readonly to: HostAgents;
  readonly guest: string;
  readonly options?: readonly string[];
  /**
   * Runs the command line with the environment added, and shows its output where it is wanted.
   * @returns its exit code
   */
  readonly show: (command: readonly string[], environment: Readonly<Record<string, string>>) => Promise<number>;
}

const RESUMES_WITHIN_MS = 60_000;

export async function measuredMigration(rig: Rig, options: FerryRunOptions): Promise<FerryRun> {
  const { from, to, guest } = options;
  const source = await rig.observe(from.host, guest);
  let stop: QmpEvent | undefined;
  const unsubscribe = source.subscribe((event) => {
    if (event.event === "STOP") stop = event;
  });
  // the destination's QEMU does not exist before the handshake, so its monitor is waited for beside the command
  const waiting = new AbortController();
  const resumed = resumeEvent(rig, to, guest, waiting.signal);
  // a destination QEMU that ends closes its monitor before the command has said why
  resumed.catch(() => undefined);
  const bytesBefore = await rig.network.wireBytes();
  const command = ferryCommand(from, ["migrate", guest, "--to", to.destinationAddress, ...(options.options ?? [])]);
  const exitCode = await options.show(command, rig.environment);
  if (exitCode !== 0) waiting.abort();
  const resume = exitCode === 0 ? await resumed : undefined;
  const bytesOnWire = (await rig.network.wireBytes()) - bytesBefore;
  unsubscribe();
  source.close();
  const view = (await listMigrations(rig, from)).filter((one) => one.guest === guest).at(-1);
  if (view === undefined) throw new Error(`${from.sourceAddress} knows no migration of ${guest}`);
  const totalSeconds = resume === undefined ? 0 : resume.timestampUs / 1e6 - view.startedAtMs / 1e3;
  const downtimeMs =
    resume === undefined || stop === undefined ? undefined : (resume.timestampUs - stop.timestampUs) / 1e3;
  return { exitCode, totalSeconds, downtimeMs, bytesOnWire, view };
}

async function resumeEvent(
  rig: Rig,
  to: HostAgents,
  guest: string,
  signal: AbortSignal,
): Promise<QmpEvent | undefined> {
  try {
    const monitor = await rig.observe(to.host, guest, { timeoutMs: RESUMES_WITHIN_MS });
    const event = await monitor.waitFor("RESUME", undefined, { timeoutMs: RESUMES_WITHIN_MS, signal });
    monitor.close();
    return event;
  } catch (thrown) {
    if (signal.aborted) return undefined;
    throw thrown;
  }
}
