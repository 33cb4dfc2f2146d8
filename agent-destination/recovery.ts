/** What an agent that starts again does with the incoming migrations that its journal knows (DESIGN 6, 5). */
import { readdir, readFile, rm } from "node:fs/promises";
import { connect } from "node:net";
import { MigrationFault } from "../shared/fault.ts";
import type { LinkLimits } from "../shared/link/link.ts";
import type { PageKernels } from "../shared/page/kernels.ts";
import { type DestinationQemu, recoverDestination } from "../shared/protocol/destination-states.ts";
import type { DestinationRecord } from "../shared/protocol/ownership.ts";
import type { Clock } from "../shared/runtime/clock.ts";
import type { DestinationConfig } from "../shared/runtime/config.ts";
import { type GuestDefinition, loadGuest, qemuLogPath } from "../shared/runtime/guest-definition.ts";
import type { Journal } from "../shared/runtime/journal.ts";
import type { Logger } from "../shared/runtime/log.ts";
import { identify } from "../shared/runtime/process-identity.ts";
import { sweep } from "../shared/runtime/sweep.ts";
import type { TestFaults } from "../shared/runtime/test-faults.ts";
import { type DestinationContext, destinationRecord, keeperPath } from "./destination-context.ts";
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
  /** A guest comes, or a source measures its link to here. */
  readonly onBusy?: () => void;
}

const STUCK_MS = 1000;
/** Records of ended migrations that are kept, for sources that ask late. */
const RECORDS_KEPT = 200;

type Make = (of: { id: string; guest: string; token: Uint8Array }) => DestinationContext;

/** What is found of files that are no records is told and left alone: nothing is guessed from them. */
export async function recoverIncoming(
  parts: DestinationAgentParts,
  make: Make,
): Promise<{ readonly cx: DestinationContext; readonly state: DestinationState }[]> {
  const { journal, log } = parts;
  const rehearsal = ["rehearsal-destination", "rehearsal-destination-peer", "rehearsal-destination-monitor"];
  await sweep(parts.config.runtimeDirectory, ["incoming", "verify-destination", ...rehearsal]);
  const { entries, faults } = await journal.list();
  for (const fault of faults)
    log.error(
      { fault: fault.message, advice: fault.advice },
      "a file in stateDirectory is no record; what it belongs to is not known",
    );
  const found: { cx: DestinationContext; state: DestinationState }[] = [];
  const known = new Set(entries.map(({ record }) => record.qemuProcess));
  const cleared = new Set<string>();
  for (const { id, record } of entries) {
    const cx = make({ id, guest: record.guest, token: Buffer.from(record.grant.token, "hex") });
    const guest = await adopt(record, cx, known);
    // a QEMU that lost its stream with the agent has ended, and left its files
    if (guest === undefined && record.kind !== "arrived") cleared.add(record.guest);
    const state = await takeUp(record, guest, cx);
    if (state === undefined) continue;
    cx.log.warn({ record: record.kind, state: state.kind }, "taking up a migration from the journal");
    found.push({ cx, state });
  }
  for (const name of cleared) await clearFiles(name, parts.config);
  await journal.prune(({ kind }) => kind === "arrived" || kind === "refused", RECORDS_KEPT);
  return found;
}

/**
 * The QEMU of a record, if its process still is there. Only the very process that was written down: a guest of the same name
 * that came here since looks alike from outside, and must never be taken for one that was refused.
 */
async function adopt(
  record: DestinationRecord,
  cx: DestinationContext,
  known: Known,
): Promise<GuestProcess | undefined> {
  // of a guest that arrived nothing is to be done, and its monitor is others'
  if (record.kind === "arrived") return undefined;
  const { runtimeDirectory, qmpTimeoutMs } = cx.config;
  const definition = await loadGuest(record.guest, cx.config).catch((thrown: unknown) => {
    cx.log.error({ fault: MigrationFault.from(thrown).message }, "cannot find the guest of a journalled migration");
    return undefined;
  });
  if (definition === undefined) return undefined;
  const isWritten = record.qemuProcess !== "";
  const process = isWritten
    ? { pid: record.qemuPid, identity: record.qemuProcess }
    : record.kind === "waiting"
      ? await findUnwritten(definition, known)
      : undefined;
  if (process === undefined) return undefined;
  const guest = await GuestProcess.adopt(definition, process, {
    runtimeDirectory,
    timeoutMs: qmpTimeoutMs,
    keeperPath: record.postcopy === undefined ? undefined : keeperPath(cx),
  });
  return guest === undefined || isWritten || (await isWaiting(guest)) ? guest : undefined;
}

/** Identities of all processes that are in a record. */
type Known = ReadonlySet<string>;

/** The agent ended between starting a QEMU and noting which it was: one that waits for a migration, and is in no record. */
async function findUnwritten(
  definition: GuestDefinition,
  known: Known,
): Promise<{ pid: number; identity: string } | undefined> {
  const wanted = [...definition.command.slice(1), ...WAITING_ARGUMENTS].join("\0");
  for (const name of await readdir("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (!command.endsWith(`\0${wanted}\0`)) continue;
    const identity = await identify(pid);
    if (identity !== undefined && !known.has(identity)) return { pid, identity };
  }
  return undefined;
}

/** A guest that arrived keeps its command line: only what QEMU says tells that it still waits. */
async function isWaiting(guest: GuestProcess): Promise<boolean> {
  if ((await stateOf(guest).catch(() => undefined)) === "loading") return true;
  guest.letGo();
  return false;
}

/** Of a QEMU that has ended; not where one listens. */
async function clearFiles(name: string, config: DestinationConfig): Promise<void> {
  const definition = await loadGuest(name, config).catch(() => undefined);
  if (definition === undefined || (await isListenedAt(definition.qmp))) return;
  for (const left of [definition.qmp, qemuLogPath(name, config.runtimeDirectory)]) await rm(left, { force: true });
}

/** Without waiting for a greeting: the monitor may be another client's. */
function isListenedAt(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error: NodeJS.ErrnoException) =>
      resolve(error.code !== "ECONNREFUSED" && error.code !== "ENOENT"),
    );
  });
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
  const postcopy = record.postcopy === undefined ? {} : { postcopy: record.postcopy };
  switch (kind) {
    case "loaded":
      return guest === undefined ? undefined : { kind, guest, ...postcopy, loadedAtUs: cx.clock.nowUs() };
    case "starting":
      if (guest === undefined) return undefined;
      return { kind, guest, ...postcopy, grant: record.grant, grantedAtUs: cx.clock.nowUs() };
    case "pulling":
      if (guest === undefined || record.postcopy === undefined) return undefined;
      return { kind, guest, postcopy: record.postcopy };
    case "refusing":
      return { kind, fault, undo };
    case "discarding":
      return guest === undefined ? undefined : { kind, fault, undo, refused: true };
    case "arrived":
      if (record.kind !== "arrived")
        await cx.journal.write(cx.id, destinationRecord(cx, "arrived", guest, record.grant));
      guest?.letGo();
      return undefined;
    case "lost":
      cx.log.error("the guest was started here, and its QEMU has ended: its source is in doubt until it is resolved");
      return undefined;
  }
}

/**
 * A guest that was never started at the source is `prelaunch` here too, once it is loaded.
 * @param postcopy it may have begun: then the main loop may wait for a page
 */
async function stateOf({ qmp }: GuestProcess, postcopy = false): Promise<Exclude<DestinationQemu, "gone">> {
  const { status } = await qmp.execute("query-status", undefined, postcopy ? { timeoutMs: STUCK_MS } : {});
  if (status === "inmigrate") return "loading";
  const { status: migration } = await qmp.execute("query-migrate");
  const pulls = postcopy && migration !== "completed";
  if (status === "running") return pulls ? "pulling" : "running";
  return migration === "completed" || (pulls && status !== "prelaunch") ? "loaded" : "loading";
}

/** One that does not answer is taken for what can be done least harm to. */
async function qemuOf(record: DestinationRecord, guest: GuestProcess | undefined): Promise<DestinationQemu> {
  if (guest === undefined) return "gone";
  try {
    return await stateOf(guest, record.postcopy !== undefined);
  } catch {
    // of post-copy one may not answer as long as pages are missing
    if (record.postcopy !== undefined && record.kind === "running") return "pulling";
    // what was to be started is started when it answers; what was not is ended
    return record.kind === "running" ? "loaded" : "loading";
  }
}
