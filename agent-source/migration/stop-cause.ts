/**
 * Finds out in which run state the guest was when QEMU's migration stopped it, and so whether the guest is granted
 * running or paused (docs/design/switchover.md#a-paused-guest).
 */
import { MigrationFault } from "../../shared/fault.ts";
import { canStayPaused } from "../../shared/protocol/handshake.ts";
import { PAUSED_STATES } from "../../shared/qemu/inspect/preflight.ts";
import type { TransferSession } from "../transfer/transfer-session.ts";
import type { SourceContext } from "./source-context.ts";

/** What stopCause() reads of a session. */
export type Stopped = Pick<TransferSession, "paused" | "contract" | "stoppedWith"> & {
  readonly capture: { readonly stoppedAs: { readonly runState: string | undefined } };
};

/** How the switchover was begun. */
interface Began {
  /** Why the policy has decided to switch over; empty where QEMU completed by itself. */
  readonly reason: string;
  /** `nothing`: QEMU completed without an acknowledgement. */
  readonly into: "destination" | "postcopy" | "nothing";
}

/**
 * Judges why the guest has stopped from the run state in QEMU's stream (shared/qemu/stream/global-state.ts). QEMU notes
 * this run state in the moment in which its migration stops the guest, and the destination's QEMU goes by it too.
 * @returns whether the guest stays paused, and why it was switched over when it was
 * @throws MigrationFault `guest-not-running` when the guest stopped for another reason than the switchover or a pause,
 *   or when it is paused and the destination agent is too old to leave it paused
 */
export function stopCause(
  { capture, paused: before, contract, stoppedWith }: Stopped,
  { reason, into }: Began,
  { report }: Pick<SourceContext, "report">,
): { readonly paused: boolean; readonly reason: string } {
  // this agent has stopped the guest for post-copy, for which QEMU notes the same as for an operator's `stop`
  if (stoppedWith !== undefined) return { paused: false, reason };
  const acknowledge = into !== "nothing";
  // every machine type that is supported notes the run state. Without the acknowledgement QEMU completes only a guest
  // that stands still
  const runState = capture.stoppedAs.runState ?? (acknowledge ? "running" : "paused");
  if (runState === "running") {
    if (before) report.degradations.push("The guest was resumed while it was copied; it was moved as a running one");
    return {
      paused: false,
      reason: acknowledge ? reason : "QEMU completed by itself: the guest was paused for a moment",
    };
  }
  if (!PAUSED_STATES.includes(runState))
    throw new MigrationFault(
      "guest-not-running",
      `The guest stopped while it was copied: its QEMU calls it ${runState}`,
      {
        advice: "See why, then migrate again",
      },
    );
  if (!canStayPaused(contract.protocolVersion))
    throw new MigrationFault(
      "guest-not-running",
      `The guest was paused while it was copied, and the destination agent is too old to leave it so (protocol ${contract.protocolVersion})`,
      { advice: "Upgrade the destination agent, or resume the guest; then migrate again" },
    );
  if (before) return { paused: true, reason: "the guest is paused: copied once" };
  const stopped = "the guest was paused while it was copied";
  return { paused: true, reason: acknowledge ? `${reason}; ${stopped}` : stopped };
}
