import type { SourceContext } from "../source-context.ts";
import type { State } from "../source-state.ts";
import { release } from "./release.ts";

/**
 * Granted, and no word: the guest stays paused here until somebody who knows says where it is. Never a time-out: the
 * destination may run it at this very moment.
 */
export async function doubt(state: State<"inDoubt">, cx: SourceContext): Promise<State<"released"> | State<"keeping">> {
  const { feed, fault } = state;
  cx.report.failed(fault, "");
  cx.log.error({ code: fault.code }, fault.message);
  // the operator's word, or the answer itself should it come late on the same stream
  const answered = feed.inbox.grantAnswer.promise.then((answer) =>
    answer.kind === "running" ? "destination" : "source",
  );
  const keepWhere = await Promise.race([cx.resolution.promise, answered]);
  cx.log.warn({ keep: keepWhere }, "the migration in doubt is resolved");
  if (keepWhere === "source") return { kind: "keeping", fault, undo: { qmp: feed.qmp, channel: feed.channel, feed } };
  await release(feed, cx);
  return { kind: "released" };
}
