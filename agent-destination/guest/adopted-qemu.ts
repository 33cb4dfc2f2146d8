/** Finds a QEMU that an earlier life of this agent started, and tells what that QEMU does. */
import { readFile } from "node:fs/promises";
import { MigrationFault } from "../../shared/fault.ts";
import type { DestinationQemu } from "../../shared/protocol/destination-states.ts";
import type { DestinationRecord, QemuProcess } from "../../shared/protocol/ownership.ts";
import { PAUSED_STATES } from "../../shared/qemu/inspect/preflight.ts";
import type { GuestDefinition } from "../../shared/runtime/guest/guest-definition.ts";
import { isTrusted } from "../../shared/runtime/guest/monitor-process.ts";
import { findProcesses } from "../../shared/runtime/host/all-processes.ts";
import { identify } from "../../shared/runtime/host/process-identity.ts";
import type { Journal } from "../../shared/runtime/journal/journal.ts";
import { STUCK_MS } from "./answering-process.ts";
import { type GuestProcess, WAITING_ARGUMENTS } from "./guest-process.ts";
import { isMarkedRefused } from "./refusal-mark.ts";

/**
 * Finds, by its command line and its user, a QEMU that waits for a migration and is in no record: the agent ended
 * between starting it and writing which process it is.
 * @returns undefined where there is none
 */
export async function findUnwritten(
  definition: GuestDefinition,
  journal: Journal<DestinationRecord>,
): Promise<QemuProcess | undefined> {
  const { entries } = await journal.list();
  const known = new Set(entries.map(({ record }) => record.qemu?.identity));
  const wanted = ["", ...definition.command.slice(1), ...WAITING_ARGUMENTS, ""].join("\0");
  const isWanted = async (pid: number): Promise<boolean> =>
    (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).includes(wanted) &&
    (await isTrusted(pid, definition.qmp));
  for (const pid of await findProcesses(isWanted)) {
    const identity = await identify(pid);
    if (identity !== undefined && !known.has(identity)) return { pid, identity };
  }
  return undefined;
}

/**
 * Tells what an adopted QEMU does. The status `prelaunch` alone does not tell whether QEMU still loads: a guest that
 * was never started at the source is `prelaunch` here too, once it is loaded.
 * @throws MigrationFault when QEMU does not tell
 */
export async function stateOf(
  guest: GuestProcess,
  record: Pick<DestinationRecord, "kind" | "postcopy">,
): Promise<Exclude<DestinationQemu, "gone">> {
  const isPostcopy = record.postcopy !== undefined;
  try {
    return await stateSaid(guest, isPostcopy);
  } catch (thrown) {
    // QEMU's main loop may wait for a page, and only *pulling* brings pages. Before the grant the guest has not run, so
    // QEMU waits for none
    const isStuck = MigrationFault.from(thrown).code === "qmp-timeout";
    if (isPostcopy && record.kind === "running" && isStuck && !(await guest.hasEnded())) return "pulling";
    throw thrown;
  }
}

/** Tells what QEMU does, by its own answers. */
async function stateSaid({ qmp }: GuestProcess, isPostcopy: boolean): Promise<Exclude<DestinationQemu, "gone">> {
  const { status } = await qmp.execute("query-status", undefined, isPostcopy ? { timeoutMs: STUCK_MS } : {});
  if (status === "inmigrate") return "loading";
  const { status: migration } = await qmp.execute("query-migrate");
  const pulls = isPostcopy && migration !== "completed";
  // a guest that stands still for another reason (a disk error, a panic, a suspend) needs its missing pages all the
  // same
  if (pulls && !PAUSED_STATES.includes(status)) return (await isMarkedRefused(qmp)) ? "started" : "pulling";
  // a QEMU that has the guest and waits is in one of the paused states, whatever `query-migrate` says
  if (!PAUSED_STATES.includes(status)) {
    if (await isMarkedRefused(qmp)) return "started";
    return status === "running" ? "running" : "moved";
  }
  const isWhole = migration === "completed" || (pulls && status !== "prelaunch");
  if (!isWhole) return "loading";
  return (await isMarkedRefused(qmp)) ? "marked" : "loaded";
}
