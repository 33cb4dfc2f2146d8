/**
 * Finds out and notes that somebody other than an agent has started a guest here. No agent has granted such a guest. It
 * may have run, so no agent may refuse it any more.
 */
import { type DestinationPostcopy, EPOCH } from "../../shared/protocol/ownership.ts";
import { PAUSED_STATES } from "../../shared/qemu/inspect/preflight.ts";
import { processUsage } from "../../shared/runtime/host/process-usage.ts";
import { orLogged } from "../../shared/runtime/journal/journal-log.ts";
import { writeInTime } from "../../shared/runtime/journal/write-in-time.ts";
import type { GuestProcess } from "../guest/guest-process.ts";
import { type DestinationContext, destinationRecord } from "./destination-context.ts";

/**
 * How long QEMU may take to tell its state, milliseconds. A QEMU that has not answered by then counts as not seen to
 * run.
 */
const LOOKS_WITHIN_MS = 2000;

/** Tells whether QEMU was seen to run the guest, or to have run it. */
export async function hasStarted(guest: GuestProcess): Promise<boolean> {
  const monitor = await guest.monitor().catch(() => undefined);
  const answer = monitor?.execute("query-status", undefined, { timeoutMs: LOOKS_WITHIN_MS });
  const status = (await answer?.catch(() => undefined))?.status;
  // a QEMU in any other state has run the guest, and may even have been the source of a later migration
  return status !== undefined && status !== "inmigrate" && !PAUSED_STATES.includes(status);
}

/**
 * Resolves when somebody says `cont` to the guest's QEMU.
 * @param over once this signal is aborted, the promise never resolves
 */
export const onceStarted = (guest: GuestProcess, over: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    over.addEventListener("abort", guest.onResume(resolve), { once: true });
  });

/**
 * Notes in the journal that the guest was seen to run here. The record is `arrived`, which never lets an agent say
 * `cont`, or in post-copy `running` with `ungranted`, so that the missing pages are fetched. Nothing is lost where the
 * disk does not take the record: an agent that starts again sees that the guest runs.
 */
export async function noteStarted(
  guest: GuestProcess,
  postcopy: DestinationPostcopy | undefined,
  cx: DestinationContext,
): Promise<void> {
  cx.log.error("somebody has started the guest here, without a grant; no agent refuses it any more");
  const usage = processUsage();
  cx.onRunning({
    epoch: EPOCH,
    resumedAtUs: cx.clock.nowUs(),
    grantedAtUs: cx.clock.nowUs(),
    agentCpuSeconds: usage.cpuSeconds - cx.cpuSecondsBefore,
    agentPeakMemoryBytes: usage.peakMemoryBytes,
  });
  const record =
    postcopy === undefined
      ? destinationRecord(cx, "arrived", guest, { ungranted: true })
      : destinationRecord(cx, "running", guest, { postcopy, ungranted: true });
  await orLogged(writeInTime(cx, record), cx.log);
  if (postcopy === undefined) guest.letGo();
}
