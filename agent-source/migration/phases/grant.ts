/**
 * The state *granting*: the grant is sent, and the destination's answer is awaited. *inDoubt* waits for the answer by
 * the same function, hear().
 */
import { MigrationFault } from "../../../shared/fault.ts";
import { EPOCH } from "../../../shared/protocol/ownership.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import type { Timer } from "../../../shared/runtime/clock.ts";
import { endingAfter, orAborted } from "../../../shared/runtime/deferred.ts";
import { orLogged } from "../../../shared/runtime/journal/journal-log.ts";
import { writeInTime } from "../../../shared/runtime/journal/write-in-time.ts";
import type { TransferSession } from "../../transfer/transfer-session.ts";
import { askUntilSettled, type Settled } from "../ask-destination.ts";
import { GUEST_IN_DOUBT, type SourceContext, sourceRecord } from "../source-context.ts";
import { type Granted, isOfPostcopy, keptOf, type State, undoSession } from "../source-state.ts";
import { twoCopies } from "../two-copies.ts";

/**
 * After this time without an answer over the stream the destination is also asked by calls, milliseconds. An answer
 * over the stream takes a round trip and a `cont`.
 */
const ASKS_AFTER_MS = 2000;

/** Sends the grant, which is in the journal. From here on only the proof of a refusal gives the guest back. */
export async function grant(
  state: State<"granting">,
  cx: SourceContext,
): Promise<State<"releasing"> | State<"serving"> | State<"inDoubt"> | State<"keeping">> {
  const { loaded } = state;
  const { session } = loaded;
  // somebody has said `cont` since QEMU was retired, so the copy at the destination is older than what ran here
  if (!session.runs.standsStill) {
    await noteWithdrawn({ loaded, paused: session.paused }, cx);
    const fault = doubtful(cx, "somebody has started it at the source before the grant was sent");
    return { kind: afterSource("granting", "fault"), loaded, paused: session.paused, fault };
  }
  session.inbox.grantSent(cx.token);
  // the stream does not give up, however long the link is down: only proof settles the grant
  session.channel.setPatience(Number.POSITIVE_INFINITY);
  session.channel.send({ kind: "grant", token: cx.token, epoch: EPOCH, paused: session.paused });
  let news = `no answer within ${cx.config.link.doubtAfterMs} ms (link.doubtAfter)`;
  const hearing = (signal: AbortSignal) =>
    hear({ loaded, paused: session.paused }, cx, signal, (said) => {
      news = said;
    });
  try {
    const settled = await endingAfter(cx.config.link.doubtAfterMs, cx.leaving, cx.clock, hearing);
    if (settled.kind === "doubled") throw twoCopies(cx);
    return afterAnswer(settled, state, cx);
  } catch (thrown) {
    const fault = doubtful(cx, news, thrown);
    return { kind: afterSource("granting", "fault"), loaded, paused: session.paused, fault };
  }
}

/**
 * Resolves with the first proof of what became of the grant. The proof comes over the stream, or as the answer to a
 * call. If the guest is started here meanwhile, the grant is withdrawn. The stream is then closed, because it
 * would otherwise still deliver the grant when a cut link is back.
 * @param granted where `silent` is set, an answer over the stream no longer counts, and the destination is asked by
 *   calls at once
 * @param onNews called with what is known while nothing is proven
 * @throws the signal's reason
 */
export async function hear(
  granted: Granted & { readonly silent?: true },
  cx: SourceContext,
  signal: AbortSignal,
  onNews: (news: string) => void,
): Promise<Settled> {
  const { loaded, paused } = granted;
  const session = loaded?.session;
  const stopping = new AbortController();
  const either = AbortSignal.any([signal, stopping.signal]);
  const isPostcopy = isOfPostcopy(granted);
  const tear = (): void => session?.channel.close(new MigrationFault("peer-lost", "The source withdraws the grant"));
  // a withdrawal waits until the note is written, also where the event RESUME has made the agent begin to write it
  let noted: Promise<void> | undefined;
  const onWithdraw = async (isActive: boolean): Promise<void> => {
    tear();
    if (!isActive) return;
    noted ??= noteWithdrawn(granted, cx);
    await noted;
  };
  const asking = { paused, isPostcopy, look: () => cx.qemu.look(isPostcopy, session?.qmp), onWithdraw, onNews };
  const resumes = session?.qmp.subscribe(({ event }) => {
    if (event === "RESUME") void onWithdraw(true);
  });
  try {
    if (session === undefined || granted.silent === true) return await askUntilSettled(cx, asking, either);
    const said = session.inbox.grantAnswer.promise.then(
      (answer): Settled =>
        answer.kind === "running" ? { kind: "running", running: answer } : { kind: "refused", message: answer.message },
    );
    const asked = silence(session, cx, either).then(() => askUntilSettled(cx, asking, either));
    asked.catch(() => undefined);
    return await orAborted(Promise.race([said, asked]), signal);
  } finally {
    stopping.abort();
    resumes?.();
  }
}

/**
 * Writes `withdrawn` before the first withdrawal of a guest that runs here. If its QEMU ends before the next look, the
 * copy at the destination is older than what ran here, and must not be granted again. Where the disk does not take the
 * record, the agent still remembers the withdrawal until it ends.
 */
async function noteWithdrawn(granted: Granted, cx: SourceContext): Promise<void> {
  if (cx.doubt.isWithdrawn) return;
  cx.doubt.isWithdrawn = true;
  cx.log.error("somebody has started the guest here after it was granted: the grant is withdrawn, and never repeated");
  const record = sourceRecord(cx, "granted", keptOf(granted));
  await orLogged(writeInTime(cx, record), cx.log);
}

/** Resolves after ASKS_AFTER_MS, or as soon as the stream is over. */
async function silence({ channel }: TransferSession, { clock }: SourceContext, signal: AbortSignal): Promise<void> {
  let timer: Timer | undefined;
  const while_ = new Promise<void>((resolve) => {
    timer = clock.after(ASKS_AFTER_MS, resolve);
  });
  try {
    await orAborted(Promise.race([while_, channel.closed]), signal);
  } finally {
    clock.cancel(timer);
  }
}

function afterAnswer(
  settled: Exclude<Settled, { readonly kind: "doubled" }>,
  { loaded }: State<"granting">,
  cx: SourceContext,
): State<"releasing"> | State<"serving"> | State<"keeping"> {
  if (settled.kind === "refused")
    return {
      kind: afterSource("granting", "refused"),
      fault: refusal(cx, settled.message),
      undo: undoSession(loaded.session, "granted"),
    };
  const { running } = settled;
  const kind = afterSource("granting", loaded.session.isPostcopy ? "pulling" : "running");
  const whole = { kind, loaded, paused: loaded.session.paused };
  return running === undefined ? whole : { ...whole, running };
}

/** Makes the fault of a migration whose guest the destination has refused. @param message why it has refused */
export const refusal = (cx: SourceContext, message: string): MigrationFault =>
  new MigrationFault("peer-failed", `The destination ${cx.call.to} refused the guest: ${message}`, {
    role: "destination",
    advice: "See the destination agent's log for this migration, then migrate again",
  });

/** Makes the fault of a migration that is in doubt. @param news what is known of the guest */
export const doubtful = (cx: SourceContext, news: string, cause?: unknown): MigrationFault =>
  new MigrationFault("in-doubt", `The guest was granted to ${cx.call.to}: ${news}`, {
    cause,
    guestNow: GUEST_IN_DOUBT,
    advice: `The agent asks it again and again; or find out whether the guest runs there, then: ferry resolve ${cx.id} --keep source|destination`,
  });
