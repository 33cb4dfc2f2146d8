import { MigrationFault } from "../../shared/fault.ts";
import { afterSource } from "../../shared/protocol/source-states.ts";
import { orAborted } from "../../shared/runtime/deferred.ts";
import { askUntilSettled, type Settled } from "../ask-destination.ts";
import type { Feed } from "../feed.ts";
import { EPOCH, GUEST_IN_DOUBT, type SourceContext } from "../source-context.ts";
import { type Granted, type State, undoFeed } from "../source-state.ts";

/** An answer over the stream takes a round trip and a `cont`; after this the destination is asked besides. */
const ASKS_AFTER_MS = 2000;

/** Sends the grant, which the journal has. From here on only the proof of a refusal gives the guest back. */
export async function grant(
  state: State<"granting">,
  cx: SourceContext,
): Promise<State<"releasing"> | State<"serving"> | State<"inDoubt"> | State<"keeping">> {
  const { loaded } = state;
  const { feed } = loaded;
  feed.inbox.grantSent(cx.token);
  // only proof ends this, however long the link is down
  feed.channel.setPatience(Number.POSITIVE_INFINITY);
  feed.channel.send({ kind: "grant", token: cx.token, epoch: EPOCH, paused: feed.paused });
  let news = `no answer within ${cx.config.link.doubtAfterMs} ms (link.doubtAfter)`;
  const late = AbortSignal.any([AbortSignal.timeout(cx.config.link.doubtAfterMs), cx.leaving]);
  try {
    const settled = await hear({ loaded, paused: feed.paused }, cx, late, (said) => {
      news = said;
    });
    return afterAnswer(settled, state, cx);
  } catch (thrown) {
    const fault = doubtful(cx, news, thrown);
    return { kind: afterSource("granting", "fault"), loaded, paused: feed.paused, fault };
  }
}

/** The first proof, over the stream or by asking. */
export async function hear(
  { loaded, paused }: Granted,
  cx: SourceContext,
  signal: AbortSignal,
  onNews: (news: string) => void,
): Promise<Settled> {
  const feed = loaded?.feed;
  const asking = new AbortController();
  const either = AbortSignal.any([signal, asking.signal]);
  try {
    if (feed === undefined) return await askUntilSettled(cx, paused, either, onNews);
    const said = feed.inbox.grantAnswer.promise.then(
      (answer): Settled =>
        answer.kind === "running" ? { kind: "running", running: answer } : { kind: "refused", message: answer.message },
    );
    const asked = silence(feed, either).then(() => askUntilSettled(cx, paused, either, onNews));
    asked.catch(() => undefined);
    return await orAborted(Promise.race([said, asked]), signal);
  } finally {
    asking.abort();
  }
}

/** Resolves when the stream is over, or has not answered for a while. */
async function silence(feed: Feed, signal: AbortSignal): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const while_ = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ASKS_AFTER_MS);
  });
  try {
    await orAborted(Promise.race([while_, feed.channel.closed]), signal);
  } finally {
    clearTimeout(timer);
  }
}

function afterAnswer(
  settled: Settled,
  { loaded }: State<"granting">,
  cx: SourceContext,
): State<"releasing"> | State<"serving"> | State<"keeping"> {
  if (settled.kind === "refused")
    return {
      kind: afterSource("granting", "refused"),
      fault: refusal(cx, settled.message),
      undo: undoFeed(loaded.feed),
    };
  const { running } = settled;
  const kind = afterSource("granting", loaded.feed.isPostcopy ? "pulling" : "running");
  const whole = { kind, loaded, paused: loaded.feed.paused };
  return running === undefined ? whole : { ...whole, running };
}

export const refusal = (cx: SourceContext, message: string): MigrationFault =>
  new MigrationFault("peer-failed", `The destination ${cx.call.to} refused the guest: ${message}`, {
    role: "destination",
    advice: "See the destination agent's log for this migration, then migrate again",
  });

export const doubtful = (cx: SourceContext, news: string, cause?: unknown): MigrationFault =>
  new MigrationFault("in-doubt", `The guest was granted to ${cx.call.to}: ${news}`, {
    cause,
    guestNow: GUEST_IN_DOUBT,
    advice: `It is asked again and again; or find out whether the guest runs there, then: ferry resolve ${cx.id} --keep source|destination`,
  });
