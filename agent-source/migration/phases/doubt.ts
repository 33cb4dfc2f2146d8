/** The state *inDoubt*: the guest was granted, and it is not known whether the destination runs it. */
import { MigrationFault } from "../../../shared/fault.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import { runsHere, type Settled } from "../ask-destination.ts";
import type { SourceContext } from "../source-context.ts";
import { grantedOf, isOfPostcopy, type State, undoHandOver } from "../source-state.ts";
import { twoCopies } from "../two-copies.ts";
import { doubtful, hear, refusal } from "./grant.ts";

type Ends = State<"releasing"> | State<"serving"> | State<"keeping"> | State<"doubled">;

/**
 * Keeps the guest paused here until the destination proves what became of it, or an operator who knows says so. There
 * is no time-out, since the destination may run the guest at this very moment.
 */
export async function doubt(state: State<"inDoubt">, cx: SourceContext): Promise<Ends> {
  const { loaded, fault } = state;
  cx.report.failed(fault, "");
  if (loaded?.session.isPostcopy) {
    // the guest may run at the destination, and may need pages
    loaded.session.postcopy?.flow();
    cx.restartedStreams.listen();
  }
  // from now on the agent looks at this host before it says anything, but an open stream would deliver the grant as
  // soon as its link is back
  else
    loaded?.session.channel.close(new MigrationFault("peer-lost", "The source agent is in doubt, and asks by calls"));
  cx.log.error({ code: fault.code }, fault.message);
  let last = "";
  const onNews = (news: string): void => {
    if (news === last) return;
    last = news;
    cx.log.warn({ news }, "the migration is still in doubt");
    cx.report.failed(doubtful(cx, news), "");
  };
  const settled = await cx.words.askBeside("inDoubt", cx.leaving, (signal) => hear(state, cx, signal, onNews));
  cx.report.cleared();
  if (typeof settled !== "string") return afterAnswer(settled, state, cx);
  // the destination can fetch pages only while the guest stands still here
  if (settled === "destination" && isOfPostcopy(state) && runsHere(await cx.qemu.look(true, loaded?.session.qmp)))
    return { kind: afterSource("inDoubt", "doubled"), ...grantedOf(state), fault: twoCopies(cx) };
  return afterWord(settled, state, cx);
}

function afterAnswer(settled: Settled, state: State<"inDoubt">, cx: SourceContext): Ends {
  cx.log.info({ settled: settled.kind }, "the migration in doubt is settled by the destination");
  if (settled.kind === "doubled")
    return { kind: afterSource("inDoubt", "doubled"), ...grantedOf(state), fault: twoCopies(cx) };
  if (settled.kind === "refused")
    return { kind: afterSource("inDoubt", "refused"), fault: refusal(cx, settled.message), undo: undoHandOver(state) };
  const running = settled.running === undefined ? {} : { running: settled.running };
  return { kind: afterSource("inDoubt", isOfPostcopy(state) ? "pulling" : "running"), ...grantedOf(state), ...running };
}

function afterWord(keep: "source" | "destination", state: State<"inDoubt">, cx: SourceContext): Ends {
  cx.log.warn({ keep }, "the migration in doubt is resolved by the operator");
  // the guest there may need pages that are only here
  if (keep === "destination" && isOfPostcopy(state) && state.lost !== true)
    return { kind: afterSource("inDoubt", "keepPulling"), ...grantedOf(state) };
  if (keep === "destination")
    return { kind: afterSource("inDoubt", "keepDestination"), ...grantedOf(state), overruled: true };
  const fault = new MigrationFault(
    "in-doubt",
    "The migration was in doubt; the operator kept the guest at the source",
    {
      advice: "See that nothing of the guest is left at the destination",
    },
  );
  return { kind: afterSource("inDoubt", "keepSource"), fault, undo: undoHandOver(state) };
}
