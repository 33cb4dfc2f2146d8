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
  const { session } = loaded;
  if (session.channel.isCut) await orAborted(session.inbox.nextConnection, session.signal);
  session.signal.throwIfAborted();
  await writeInTime(cx, sourceRecord(cx, "granted", session.kept));
  session.commit();
  return { kind: afterSource("recording", "written"), loaded };
}
