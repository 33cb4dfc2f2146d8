/**
 * Asks the destination by calls how it stands while the link is cut. The source must not wait for a destination that
 * has given the migration up, since such a destination does not dial again.
 */
import { MigrationFault } from "../../shared/fault.ts";
import type { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { Standing } from "../../shared/protocol/destination-states.ts";
import { sleepUnref } from "../../shared/runtime/clock.ts";
import { askOnce } from "./ask-destination.ts";
import type { SourceContext } from "./source-context.ts";

/** The pause before each question, milliseconds. */
const PAUSE_MS = 1000;
/** How long to wait for one answer, milliseconds. */
const ANSWERS_WITHIN_MS = 3000;
const GIVEN_UP = "The destination has given the migration up";
/** Standings in which a destination dials again by itself. */
const DIALS: readonly Standing[] = ["waiting", "starting", "pulling"];

/**
 * Makes the function that a session calls when its link is cut. It asks the destination how it stands, until there is a
 * connection again. It calls `onGone` when the destination will not dial again, since it has given the migration up or
 * needs nothing more.
 */
export const askWhileCut =
  (cx: SourceContext, link: ResumingSource) =>
  (signal: AbortSignal, onGone: (fault: MigrationFault) => void): void =>
    void watchCut(cx, link, AbortSignal.any([signal, cx.leaving]), onGone);

async function watchCut(
  cx: SourceContext,
  link: ResumingSource,
  signal: AbortSignal,
  onGone: (fault: MigrationFault) => void,
): Promise<void> {
  while (link.isCut && !signal.aborted) {
    await sleepUnref(cx.clock, PAUSE_MS);
    if (!link.isCut || signal.aborted) return;
    const answer = await askOnce(cx, "standing", signal, { timeoutMs: ANSWERS_WITHIN_MS }).catch(() => undefined);
    // without an answer nothing is known: the link is down
    if (answer === undefined || DIALS.includes(answer.standing)) continue;
    const what = answer.standing === "running" ? "The destination has the whole guest" : GIVEN_UP;
    onGone(
      new MigrationFault("peer-failed", `${what}: ${answer.reason}`, {
        role: "destination",
        advice: "See the destination agent's log for this migration; if it was restarted, migrate again",
      }),
    );
    return;
  }
}
