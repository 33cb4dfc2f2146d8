/** The state *recording*: `granted` is written into the journal. */
import { afterSource } from "../../../shared/protocol/source-states.ts";
import { orAborted } from "../../../shared/runtime/deferred.ts";
import { writeInTime } from "../../../shared/runtime/journal/write-in-time.ts";
import { type SourceContext, sourceRecord } from "../source-context.ts";
import type { State } from "../source-state.ts";

/**
 * Writes `granted`; only after that may the destination hear of the grant. If the disk does not take the record, or the
 * link is down for too long, the migration goes on to *keeping*: a guest whose grant is written and cannot be sent
 * would be in doubt.
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
