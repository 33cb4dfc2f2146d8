/** The state *serving*: post-copy. The guest runs at the destination, and the source sends the pages that it misses. */
import { defined } from "../../../shared/defined.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import type { SourcePostcopy } from "../../../shared/protocol/ownership.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import type { Complete, Running } from "../../../shared/protocol/stream-messages.ts";
import { orAborted } from "../../../shared/runtime/deferred.ts";
import type { TransferSession } from "../../transfer/transfer-session.ts";
import { askOnce } from "../ask-destination.ts";
import { noteReleased } from "../note-released.ts";
import { PagesLost, resumePostcopy } from "../resume-postcopy.ts";
import { type SourceContext, strandedAt } from "../source-context.ts";
import { grantedOf, type State, undoHandOver, withoutSession } from "../source-state.ts";
import { doubtful, refusal } from "./grant.ts";
import { COMPLETES_WITHIN_MS } from "./retire.ts";

const POLL_MS = 20;
/** The pause before post-copy is tried again, and between two looks at a link that is down; milliseconds. */
const AGAIN_MS = 250;
/** How long to wait for a new stream, milliseconds. A destination agent that needs pages dials in again and again. */
const DIALS_WITHIN_MS = 2000;

type Ends = State<"releasing"> | State<"stranded"> | State<"inDoubt"> | State<"keeping">;
/** How a stream, or a question without a stream, has ended. */
type Outcome =
  | { readonly kind: "complete"; readonly complete?: Complete }
  | { readonly kind: "lost" }
  | { readonly kind: "silent" }
  | { readonly kind: "refused"; readonly message: string };

/**
 * Sends the pages that the guest still misses, first those for which it waits (postcopy-scheduler.ts). Only the last
 * page ends this state as a success, however long the link is down and whichever agent is started again. If the source
 * QEMU ends here, the pages that only it has are lost.
 */
export async function serve(state: State<"serving">, cx: SourceContext): Promise<Ends> {
  const { loaded, running, postcopy } = state;
  cx.restartedStreams.listen();
  let session = loaded?.session;
  session?.postcopy?.flow();
  let heardAtMs = cx.clock.monotonicMs();
  const isSilent = (): boolean => cx.clock.monotonicMs() - heardAtMs > cx.config.link.doubtAfterMs;
  while (true) {
    let pulls = false;
    try {
      const outcome: Outcome = session === undefined ? await ask(cx) : await untilComplete(session, cx);
      if (outcome.kind !== "complete") {
        // the first session stays open where pages may still flow over its stream, or where *keeping* will undo it
        if (session !== loaded?.session || outcome.kind === "lost") await end(session);
        const left = session === undefined || session === loaded?.session ? state : withoutStream(state);
        if (outcome.kind === "silent") return silent(left, cx);
        return outcome.kind === "refused" ? refused(left, outcome.message, cx) : lost(state, cx);
      }
      const resumed = running ?? (await saidOver(loaded?.session));
      await retireQemu(session, cx);
      // the first session goes to the next state, which makes the result from it
      if (session !== loaded?.session) await end(session);
      const kind = afterSource("serving", "served");
      return {
        ...grantedOf(state),
        kind,
        // only a guest that ran goes into post-copy
        paused: false,
        ...defined({ running: resumed, complete: outcome.complete }),
      };
    } catch (thrown) {
      if (cx.leaving.aborted) throw thrown;
      const fault = MigrationFault.from(thrown);
      cx.log.warn({ fault: fault.message }, "post-copy is broken");
      if (fault.code !== "peer-unreachable") heardAtMs = cx.clock.monotonicMs();
      pulls = thrown instanceof StillPulls;
    }
    try {
      session = await again(session, postcopy ?? loaded?.session.stoppedWith, cx);
      if (session !== undefined) heardAtMs = cx.clock.monotonicMs();
      else if (pulls && (await cx.qemu.isSeenEnded())) throw new PagesLost("qemu-failed", "The source QEMU has ended");
      else if (isSilent()) return silent(withoutStream(state), cx);
    } catch (thrown) {
      if (cx.leaving.aborted) throw thrown;
      if (thrown instanceof PagesLost) {
        const fault = stranded(cx, thrown);
        await noteStranded(fault, cx);
        return { kind: afterSource("serving", "broken"), fault };
      }
      cx.log.warn({ fault: MigrationFault.from(thrown).message }, "post-copy cannot be resumed yet");
      session = undefined;
      await orAborted(cx.clock.sleep(AGAIN_MS), cx.leaving);
    }
  }
}

/**
 * Returns the destination's message that the guest runs, which has the time of the resume, without waiting for it.
 *
 * An answer to a call may lack this message: a destination that is asked while it starts the guest says only that it
 * needs pages. But it always sends the message over the stream before it says that it has every page.
 * @returns undefined where the message has not come over the stream of this session
 */
async function saidOver(session: TransferSession | undefined): Promise<Running | undefined> {
  const answer = await Promise.race([session?.inbox.grantAnswer.promise, undefined]);
  return answer?.kind === "running" ? answer : undefined;
}

/**
 * Waits until the destination has every page, has refused the guest or is silent.
 * @throws MigrationFault when the destination's stream or QEMU's stream is over, or the destination agent has started
 *   again
 */
async function untilComplete(session: TransferSession, cx: SourceContext): Promise<Outcome> {
  const anew = cx.restartedStreams.arrived.then(() => {
    throw new MigrationFault("peer-lost", "The destination has begun another stream");
  });
  anew.catch(() => undefined);
  const over = new AbortController();
  const either = AbortSignal.any([session.signal, cx.leaving, over.signal]);
  const refusal = session.inbox.grantAnswer.promise.then((answer) =>
    answer.kind === "failure" ? answer : new Promise<never>(() => undefined),
  );
  const silence = untilSilent(session, cx, either);
  silence.catch(() => undefined);
  const first = await orAborted(Promise.race([session.inbox.complete.promise, refusal, anew, silence]), either).finally(
    () => over.abort(),
  );
  if (first === "silent") return { kind: "silent" };
  if (first.kind === "failure") return { kind: "refused", message: first.message };
  const complete = first;
  const { completedAtUs, service, agentCpuSeconds, agentPeakMemoryBytes } = complete;
  return { kind: "complete", complete: { completedAtUs, service, agentCpuSeconds, agentPeakMemoryBytes } };
}

/**
 * Resolves when the link has been down for `link.doubtAfter`: the destination's host may then be gone for good. If the
 * link was down before this call, the time counts from the call, since the destination was heard just before.
 */
async function untilSilent({ channel }: TransferSession, cx: SourceContext, signal: AbortSignal): Promise<"silent"> {
  const { clock } = cx;
  const { doubtAfterMs } = cx.config.link;
  const fromMs = clock.monotonicMs();
  while (Math.min(channel.downForMs, clock.monotonicMs() - fromMs) <= doubtAfterMs)
    await orAborted(clock.sleep(AGAIN_MS), signal);
  return "silent";
}

/**
 * Asks the destination, without a stream, whether the guest has got its last page all the same.
 * @throws StillPulls when the destination answers that pages are missing; MigrationFault when it cannot be asked
 */
async function ask(cx: SourceContext): Promise<Outcome> {
  const { standing, reason } = await askOnce(cx, "standing", cx.leaving);
  if (standing === "running") return { kind: "complete" };
  if (standing === "lost") return { kind: "lost" };
  // the destination has not heard of the grant; only *inDoubt* repeats it
  if (standing === "waiting") return { kind: "silent" };
  if (standing === "refused") return { kind: "refused", message: reason };
  throw new StillPulls("peer-lost", `The destination says ${standing}: ${reason}`);
}

/** The destination has just answered that it does not have every page. */
class StillPulls extends MigrationFault {}

/**
 * Ends a session, and goes on with new streams from the destination and from QEMU.
 * @returns a new session; undefined when the destination does not dial in, since it may need nothing any more
 * @throws PagesLost when QEMU cannot send the missing pages any more; after any other fault it may be tried again
 */
async function again(
  session: TransferSession | undefined,
  postcopy: SourcePostcopy | undefined,
  cx: SourceContext,
): Promise<TransferSession | undefined> {
  if (postcopy === undefined) throw new PagesLost("internal", "There is no record of how post-copy began");
  await end(session, new MigrationFault("peer-lost", "The source agent resumes the post-copy over another stream"));
  await orAborted(Promise.race([cx.restartedStreams.arrived, cx.clock.sleep(DIALS_WITHIN_MS)]), cx.leaving);
  const link = cx.restartedStreams.take();
  if (link === undefined) return undefined;
  const revived = await resumePostcopy(cx, postcopy, link);
  const said = "Post-copy was broken and taken up again; the figures cover only the stream before the break";
  if (!cx.report.degradations.includes(said)) cx.report.degradations.push(said);
  return revived;
}

/** Ends a session, with its monitor and its channel. */
async function end(session: TransferSession | undefined, fault?: MigrationFault): Promise<void> {
  await session?.stop();
  session?.qmp.close();
  session?.channel.close(fault);
}

/**
 * Says SHUT, since the destination has every page, and waits until QEMU has completed. Without a session QEMU has lost
 * its stream, and stays as it is until *releasing* ends it.
 */
async function retireQemu(session: TransferSession | undefined, { clock }: SourceContext): Promise<void> {
  if (session === undefined) return;
  const deadline = clock.monotonicMs() + COMPLETES_WITHIN_MS;
  session.intake.shut();
  while (true) {
    const { status } = await session.qmp.execute("query-status");
    // a QEMU that sends everything again from the first page never gets to `postmigrate`: it is still as this agent has
    // paused it, and may be quit in that state
    if (status === "postmigrate" || status === "paused") return;
    if (clock.monotonicMs() > deadline)
      throw new MigrationFault("qemu-failed", `The source QEMU is ${status} after post-copy, not postmigrate`);
    await clock.sleep(POLL_MS);
  }
}

/** Gives the state without its first session, but with what new streams need to go on with post-copy. */
function withoutStream({ running, ...state }: State<"serving">): State<"serving"> {
  return { kind: state.kind, ...withoutSession(state), ...defined({ running }) };
}

/**
 * Goes on to doubt. If the state still has its first session, the stream of that session stays open, so that pages flow
 * as soon as the destination is back, and do not wait for its answer to a question.
 */
function silent(state: State<"serving">, cx: SourceContext): State<"inDoubt"> {
  const { doubtAfterMs } = cx.config.link;
  return {
    ...grantedOf(state),
    kind: afterSource("serving", "silent"),
    paused: false,
    silent: true,
    fault: doubtful(
      cx,
      `the guest runs there with pages missing, and nothing was heard for ${doubtAfterMs} ms (link.doubtAfter)`,
    ),
  };
}

/** Goes on to *keeping*: QEMU has refused to start the guest at the destination, so the guest has not run there. */
function refused(state: State<"serving">, message: string, cx: SourceContext): State<"keeping"> {
  return { kind: afterSource("serving", "refused"), fault: refusal(cx, message), undo: undoHandOver(state) };
}

/**
 * Goes on to doubt without the stream. The stream has said that the guest runs at the destination, which is not true
 * any more, so the agent asks by calls.
 */
function lost(state: State<"serving">, cx: SourceContext): State<"inDoubt"> {
  const fault = doubtful(cx, "the guest ran there and its QEMU has ended before it had all of its pages");
  return { ...withoutSession(state), kind: afterSource("serving", "lost"), lost: true, fault };
}

/**
 * Writes `released` if the QEMU here has ended, since nothing of the guest is left on this host then. While that QEMU
 * lives, the record stays `granted`, because an operator may still want the copy here.
 */
async function noteStranded(fault: MigrationFault, cx: SourceContext): Promise<void> {
  if (!(await cx.qemu.isSeenEnded())) return;
  // that QEMU has ended, so nobody has to know how it was left
  await noteReleased(cx, { paused: false }, fault);
}

/** Makes the fault of a guest that has lost pages. */
function stranded(cx: SourceContext, cause: MigrationFault): MigrationFault {
  return new MigrationFault("pages-lost", `Pages of the guest were lost in post-copy: ${cause.message}`, {
    cause,
    guestNow: strandedAt(cx.call.to),
    advice: `Save now what the guest can still do there; then end it: ferry --agent ${cx.call.to} resolve ${cx.id} --keep source`,
  });
}
