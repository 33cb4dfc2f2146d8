import { afterSource } from "../../shared/protocol/source-states.ts";
import { type SourceContext, sourceRecord } from "../source-context.ts";
import type { State } from "../source-state.ts";

/** `granted` on the disk; only then may anybody hear of it. A disk that does not take it ends in *keeping*. */
export async function record(state: State<"recording">, cx: SourceContext): Promise<State<"granting">> {
  const { loaded } = state;
  await cx.journal.write(cx.id, sourceRecord(cx, "granted", loaded.feed.settings));
  return { kind: afterSource("recording", "written"), loaded };
}
