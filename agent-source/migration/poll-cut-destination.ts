/** While the link is cut: does the destination still wait? One that has given up must not be waited for. */
import { setTimeout as delay } from "node:timers/promises";
import { MigrationFault } from "../../shared/fault.ts";
import type { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { Standing } from "../../shared/protocol/destination-states.ts";
import { askOnce } from "./ask-destination.ts";
import type { SourceContext } from "./source-context.ts";

const PAUSE_MS = 1000;
const ANSWERS_WITHIN_MS = 3000;
const GIVEN_UP = "The destination has given the migration up";
/** Standings in which a destination makes a new connection by itself. */
const DIALS: readonly Standing[] = ["waiting", "starting", "pulling"];

/**
 * Asks the destination how it stands whenever the link is cut, until there is a connection again.
 * @returns what a session calls when its link is cut; `onGone` is told when the destination has given the migration up, or
 *   needs nothing more: it does not dial again
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
    await delay(PAUSE_MS, undefined, { ref: false });
    if (!link.isCut || signal.aborted) return;
    const answer = await askOnce(cx, "standing", signal, { timeoutMs: ANSWERS_WITHIN_MS }).catch(() => undefined);
    // no answer is no news: the link is down
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
