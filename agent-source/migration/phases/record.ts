import { afterSource } from "../../../shared/protocol/source-states.ts";
import { orAborted } from "../../../shared/runtime/deferred.ts";
import { writeInTime } from "../../../shared/runtime/journal/write-in-time.ts";
import { type SourceContext, sourceRecord } from "../source-context.ts";
import type { State } from "../source-state.ts";

/**
 * `granted` on the disk; only then may anybody hear of it. A disk that does not take it ends in *keeping*, and so does a link
 * that is down for too long: what was granted and cannot be said would be in doubt.
 */
export async function record(state: State<"recording">, cx: SourceContext): Promise<State<"granting">> {
  const { loaded } = state;
  const { feed } = loaded;
  if (feed.channel.isCut) await orAborted(feed.inbox.nextConnection, feed.signal);
  feed.signal.throwIfAborted();
  await writeInTime(cx, sourceRecord(cx, "granted", feed.kept));
  feed.commit();
  return { kind: afterSource("recording", "written"), loaded };
}
