import { MigrationFault } from "../../shared/fault.ts";
import { afterSource } from "../../shared/protocol/source-states.ts";
import type { Settled } from "../ask-destination.ts";
import type { SourceContext } from "../source-context.ts";
import { type Granted, type State, undoHandOver } from "../source-state.ts";
import { doubtful, hear, refusal } from "./grant.ts";

type Ends = State<"releasing"> | State<"serving"> | State<"keeping">;

/**
 * Granted, and no word: the guest stays paused here until the destination proves what became of it, or somebody who
 * knows says so. Never a time-out: the destination may run it at this very moment.
 */
export async function doubt(state: State<"inDoubt">, cx: SourceContext): Promise<Ends> {
  const { loaded, fault } = state;
  cx.report.failed(fault, "");
  // it may run there
  if (loaded?.feed.isPostcopy) loaded.feed.postcopy?.flow();
  cx.log.error({ code: fault.code }, fault.message);
  let last = "";
  const over = new AbortController();
  const heard = hear(state, cx, AbortSignal.any([cx.leaving, over.signal]), (news) => {
    if (news === last) return;
    last = news;
    cx.log.warn({ news }, "in doubt");
    cx.report.failed(doubtful(cx, news), "");
  });
  heard.catch(() => undefined);
  const settled = await Promise.race([heard, cx.resolution.promise]).finally(() => over.abort());
  cx.report.cleared();
  return typeof settled === "string" ? afterWord(settled, state, cx) : afterAnswer(settled, state, cx);
}

const granted = ({ loaded, settings, postcopy, paused }: Granted): Granted => ({
  paused,
  ...(loaded === undefined ? {} : { loaded }),
  ...(settings === undefined ? {} : { settings }),
  ...(postcopy === undefined ? {} : { postcopy }),
});

function afterAnswer(settled: Settled, state: State<"inDoubt">, cx: SourceContext): Ends {
  cx.log.info({ settled: settled.kind }, "the migration in doubt is settled by the destination");
  if (settled.kind === "refused")
    return { kind: afterSource("inDoubt", "refused"), fault: refusal(cx, settled.message), undo: undoHandOver(state) };
  if (state.postcopy !== undefined || state.loaded?.feed.isPostcopy === true)
    return {
      kind: afterSource("inDoubt", "pulling"),
      ...granted(state),
      ...(settled.running === undefined ? {} : { running: settled.running }),
    };
  const running = settled.running === undefined ? {} : { running: settled.running };
  return { kind: afterSource("inDoubt", "running"), ...granted(state), ...running };
}

function afterWord(keep: "source" | "destination", state: State<"inDoubt">, cx: SourceContext): Ends {
  cx.log.warn({ keep }, "the migration in doubt is resolved by the operator");
  const isPostcopy = state.postcopy !== undefined || state.loaded?.feed.isPostcopy === true;
  // it may need pages that are only here
  if (keep === "destination" && isPostcopy && state.lost !== true)
    return { kind: afterSource("inDoubt", "keepPulling"), ...granted(state) };
  if (keep === "destination") return { kind: afterSource("inDoubt", "keepDestination"), ...granted(state) };
  const fault = new MigrationFault(
    "in-doubt",
    "The migration was in doubt; the operator kept the guest at the source",
    {
      advice: "See that nothing of it is left at the destination",
    },
  );
  return { kind: afterSource("inDoubt", "keepSource"), fault, undo: undoHandOver(state) };
}
