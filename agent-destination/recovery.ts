/** What an agent that starts again does with the incoming migrations that its journal knows (DESIGN 6, 5). */
import { readdir, readFile, rm } from "node:fs/promises";
import { MigrationFault } from "../shared/fault.ts";
import type { LinkLimits } from "../shared/link/link.ts";
import type { PageKernels } from "../shared/page/kernels.ts";
import { type DestinationQemu, recoverDestination } from "../shared/protocol/destination-states.ts";
import type { DestinationRecord } from "../shared/protocol/ownership.ts";
import { QmpClient } from "../shared/qemu/qmp-client.ts";
import type { Clock } from "../shared/runtime/clock.ts";
import type { DestinationConfig } from "../shared/runtime/config.ts";
import { type GuestDefinition, loadGuest, qemuLogPath } from "../shared/runtime/guest-definition.ts";
import type { Journal } from "../shared/runtime/journal.ts";
import type { Logger } from "../shared/runtime/log.ts";
import { identify } from "../shared/runtime/process-identity.ts";
import { sweep } from "../shared/runtime/sweep.ts";
import type { TestFaults } from "../shared/runtime/test-faults.ts";
import { type DestinationContext, destinationRecord } from "./destination-context.ts";
import type { DestinationState } from "./destination-state.ts";
import { GuestProcess, WAITING_ARGUMENTS } from "./guest-process.ts";

export interface DestinationAgentParts {
  readonly config: DestinationConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly journal: Journal<DestinationRecord>;
  readonly limits: LinkLimits;
  readonly createKernels: (byteLength: number) => PageKernels;
  readonly faults: TestFaults;
}

/** Records of ended migrations that are kept, for sources that ask late. */
const RECORDS_KEPT = 200;
/** Does a QEMU answer? Its monitor may be held by another client, which is an answer too. */
const ASK_MS = 1000;

type Make = (of: { id: string; guest: string; token: Uint8Array }) => DestinationContext;

/** What is found of files that are no records is told and left alone: nothing is guessed from them. */
export async function recoverIncoming(
  parts: DestinationAgentParts,
  make: Make,
): Promise<{ readonly cx: DestinationContext; readonly state: DestinationState }[]> {
  const { journal, log } = parts;
  await sweep(parts.config.runtimeDirectory, ["incoming", "verify-destination"]);
  const { entries, faults } = await journal.list();
  for (const fault of faults)
    log.error(
      { fault: fault.message, advice: fault.advice },
      "a file in stateDirectory is no record; what it belongs to is not known",
    );
  const found: { cx: DestinationContext; state: DestinationState }[] = [];
  for (const { id, record } of entries) {
    const cx = make({ id, guest: record.guest, token: Buffer.from(record.grant.token, "hex") });
    const guest = await adopt(record, cx);
    // a QEMU that lost its stream with the agent has ended, and left its files
    if (guest === undefined && record.kind !== "arrived") await clearFiles(record.guest, cx);
    const state = await takeUp(record, guest, cx);
    if (state === undefined) continue;
    cx.log.warn({ record: record.kind, state: state.kind }, "taking up a migration from the journal");
    found.push({ cx, state });
  }
  await journal.prune(({ kind }) => kind === "arrived" || kind === "refused", RECORDS_KEPT);
  return found;
}

/** A QEMU of this guest that was started to wait for a migration, and whose number nobody wrote down. */
async function findWaiting(definition: GuestDefinition): Promise<{ pid: number; identity: string } | undefined> {
  const wanted = [...definition.command.slice(1), ...WAITING_ARGUMENTS].join("\0");
  for (const name of await readdir("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (!command.endsWith(`\0${wanted}\0`)) continue;
    const identity = await identify(pid);
    if (identity !== undefined) return { pid, identity };
  }
  return undefined;
}

/** Of a QEMU that has ended; not where another one of this guest answers. */
async function clearFiles(name: string, cx: DestinationContext): Promise<void> {
  const definition = await loadGuest(name, cx.config).catch(() => undefined);
  if (definition === undefined || !(await isUnanswered(definition.qmp))) return;
  for (const left of [definition.qmp, qemuLogPath(name, cx.config.runtimeDirectory)]) await rm(left, { force: true });
}

async function isUnanswered(path: string): Promise<boolean> {
  try {
    (await QmpClient.connect(path, { timeoutMs: ASK_MS })).close();
    return false;
  } catch (thrown) {
    return MigrationFault.from(thrown).code === "qmp-unreachable";
  }
}

async function adopt(record: DestinationRecord, cx: DestinationContext): Promise<GuestProcess | undefined> {
  // of a guest that arrived nothing is to be done, and its monitor is others'
  if (record.kind === "arrived") return undefined;
  const { runtimeDirectory, qmpTimeoutMs } = cx.config;
  const definition = await loadGuest(record.guest, cx.config).catch((thrown: unknown) => {
    cx.log.error({ fault: MigrationFault.from(thrown).message }, "cannot find the guest of a journalled migration");
    return undefined;
  });
  if (definition === undefined) return undefined;
  const known = { pid: record.qemuPid, identity: record.qemuProcess };
  // the agent ended between starting the QEMU and noting which it was
  const process = known.identity === "" ? await findWaiting(definition) : known;
  if (process === undefined) return undefined;
  return GuestProcess.adopt(definition, process, { runtimeDirectory, timeoutMs: qmpTimeoutMs });
}

/** @returns undefined when nothing is left to do */
async function takeUp(
  record: DestinationRecord,
  guest: GuestProcess | undefined,
  cx: DestinationContext,
): Promise<DestinationState | undefined> {
  const kind = recoverDestination(record.kind, await qemuOf(record, guest));
  const fault = new MigrationFault(
    "interrupted",
    "The destination agent ended during the migration, and started again",
  );
  const undo = guest === undefined ? {} : { guest };
  switch (kind) {
    case "loaded":
      return guest === undefined ? undefined : { kind, guest, loadedAtUs: cx.clock.nowUs() };
    case "starting":
      return guest === undefined ? undefined : { kind, guest, grant: record.grant, grantedAtUs: cx.clock.nowUs() };
    case "refusing":
      return { kind, fault, undo };
    case "discarding":
      return guest === undefined ? undefined : { kind, fault, undo, refused: true };
    case "arrived":
      if (record.kind !== "arrived") await cx.journal.write(cx.id, destinationRecord(cx, "arrived", guest));
      guest?.letGo();
      return undefined;
    case "lost":
      cx.log.error("the guest was started here, and its QEMU has ended: its source is in doubt until it is resolved");
      return undefined;
  }
}

/** One that does not answer is taken for what can be done least harm to. */
async function qemuOf(record: DestinationRecord, guest: GuestProcess | undefined): Promise<DestinationQemu> {
  if (guest === undefined) return "gone";
  try {
    const { status } = await guest.qmp.execute("query-status");
    if (status === "running") return "running";
    if (status === "inmigrate" || status === "prelaunch") return "loading";
    const { status: migration } = await guest.qmp.execute("query-migrate");
    return migration === "completed" ? "loaded" : "loading";
  } catch {
    // what was to be started is started when it answers; what was not is ended
    return record.kind === "running" ? "loaded" : "loading";
  }
}
