/** The state *releasing*: the guest runs at the destination, and this host gives up its part. */
import { MigrationFault } from "../../../shared/fault.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import { removeLeft } from "../../../shared/runtime/files/remove-left.ts";
import { loadGuest } from "../../../shared/runtime/guest/guest-definition.ts";
import { qemuLogPath, removeLog } from "../../../shared/runtime/guest/guest-log.ts";
import { isListenedAt } from "../../../shared/runtime/guest/guest-socket.ts";
import { meetingPlace } from "../../../shared/runtime/guest/meeting-place.ts";
import { migrationResult } from "../../report/migration-result.ts";
import { runsHere } from "../ask-destination.ts";
import { noteReleased } from "../note-released.ts";
import type { SourceContext } from "../source-context.ts";
import { isOfPostcopy, type State, withoutSession } from "../source-state.ts";
import { twoCopies } from "../two-copies.ts";

type Ends = State<"released"> | State<"doubled">;

/**
 * Writes `released`, and ends the QEMU that is left here. Whatever fails in this state is only reported: the migration
 * has succeeded, and a failure is no reason to bring the guest back.
 */
export async function release(state: State<"releasing">, cx: SourceContext): Promise<Ends> {
  const { loaded, running, complete } = state;
  const cuts = loaded?.session.channel.interruptions;
  if (cuts !== undefined && cuts.count > 0)
    cx.report.degradations.push(
      `The link was lost ${cuts.count === 1 ? "once" : `${cuts.count} times`}, for ${(cuts.downMs / 1000).toFixed(1)} s in all`,
    );
  // there is no result for a migration that was taken up from the journal, since nothing of it was measured, nor where
  // the destination has not said when the guest resumed
  if (loaded !== undefined && running !== undefined)
    cx.report.result = migrationResult(cx, { ...loaded, running, complete });
  cx.report.follow(undefined);
  await noteReleased(cx, loaded?.session.kept ?? state);
  await loaded?.session.stop();
  loaded?.session.channel.close();
  const left = await endQemu(state, cx);
  if (left !== undefined) return left;
  // if the guest had come to this host before, the destination agent here has kept a log of its QEMU
  await removeLog(qemuLogPath(cx.call.guest, meetingPlace(cx.call.guest, cx.config.runtimeDirectory)));
  return { kind: afterSource("releasing", "done") };
}

/**
 * Run states in which a migration leaves its QEMU. In post-copy QEMU's stream may have been lost for good after the
 * guest had all its pages, which leaves QEMU in other states too.
 */
const LEFT_BEHIND: readonly string[] = ["postmigrate"];
const LEFT_BY_POSTCOPY: readonly string[] = ["postmigrate", "finish-migrate", "paused"];

/**
 * Ends the source QEMU if it is in a run state in which a migration leaves its QEMU. An overruled QEMU, whose copy the
 * operator has given up, is ended in any run state.
 * @returns the state *doubled* when the guest runs here in another QEMU, or in a source QEMU that is not overruled;
 *   undefined in any other case
 */
async function endQemu(state: State<"releasing">, cx: SourceContext): Promise<State<"doubled"> | undefined> {
  const { loaded, overruled } = state;
  const isPostcopy = isOfPostcopy(state);
  const known = loaded?.session.qmp;
  const sight = await cx.qemu.look(isPostcopy, known);
  if (runsHere(sight) && (overruled !== true || sight.anotherRuns)) {
    known?.close();
    // the session is over, and the monitor is free
    return { kind: afterSource("releasing", "doubled"), ...withoutSession(state), fault: twoCopies(cx) };
  }
  try {
    const qmp = known?.isOpen ? known : await cx.qemu.connect();
    const states = overruled === true ? undefined : isPostcopy ? LEFT_BY_POSTCOPY : LEFT_BEHIND;
    if (qmp !== undefined) await cx.qemu.quit(qmp, states).finally(() => qmp.close());
    await removeSocket(cx);
  } catch (thrown) {
    const { message } = MigrationFault.from(thrown);
    cx.log.warn({ fault: message }, "the source QEMU did not quit; the next start of this agent ends it");
    cx.report.degradations.push(`The source QEMU is still there (${message}): end it, since it must not run the guest`);
  }
  return undefined;
}

/** Removes the monitor's socket, which a killed QEMU leaves behind. A socket at which another QEMU listens stays. */
async function removeSocket(cx: SourceContext): Promise<void> {
  const { qmp: path } = await loadGuest(cx.call.guest, cx.config);
  if (!(await isListenedAt(path))) await removeLeft(path);
}
