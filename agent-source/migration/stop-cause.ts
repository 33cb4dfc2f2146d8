/** How QEMU's migration found the guest when it stopped it, and what that means for the grant. */
import { MigrationFault } from "../../shared/fault.ts";
import { canStayPaused } from "../../shared/protocol/handshake.ts";
import { PAUSED_STATES } from "../../shared/qemu/inspect/preflight.ts";
import type { TransferSession } from "../transfer/transfer-session.ts";
import type { SourceContext } from "./source-context.ts";

/** What is asked of a session here. */
export type Stopped = Pick<TransferSession, "paused" | "contract" | "stoppedWith"> & {
  readonly capture: { readonly stoppedAs: { readonly runState: string | undefined } };
};

interface Began {
  /** The policy's; empty where QEMU completed by itself. */
  readonly reason: string;
  /** `nothing`: without an acknowledgement. */
  readonly into: "destination" | "postcopy" | "nothing";
}

/**
 * By what the stream says: QEMU's own note of the moment, which the destination's QEMU goes by too.
 * @returns whether the guest stays paused, and why it was switched over when it was
 * @throws MigrationFault `guest-not-running` for a guest that stopped for another reason, or that the destination would start
 */
export function stopCause(
  { capture, paused: before, contract, stoppedWith }: Stopped,
  { reason, into }: Began,
  { report }: Pick<SourceContext, "report">,
): { readonly paused: boolean; readonly reason: string } {
  // by this agent: QEMU notes the same then as of an operator's stop
  if (stoppedWith !== undefined) return { paused: false, reason };
  const acknowledge = into !== "nothing";
  // machines that do not say it are not among those that are supported; without the acknowledgement only a still one completes
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
