/** The phase *loaded*: QEMU has the whole guest, or in post-copy its device state, and waits, paused, for the grant. */
import { MigrationFault } from "../../../shared/fault.ts";
import { afterDestination } from "../../../shared/protocol/destination-states.ts";
import { destinationMayRun, EPOCH, type OwnershipGrant } from "../../../shared/protocol/ownership.ts";
import { onceAborted } from "../../../shared/runtime/deferred.ts";
import type { Receiver } from "../../replay/receiver.ts";
import { type DestinationContext, destinationRecord, tokenText } from "../destination-context.ts";
import { type State, undoWhole, wholeOf } from "../destination-state.ts";
import { answerDigests } from "../guest-digests.ts";
import { noteStarted, onceStarted } from "../started-by-others.ts";

type Ends = State<"owning"> | State<"refusing"> | State<"arrived"> | State<"pulling">;
/**
 * What ends this state. `started`: somebody other than an agent has started the guest. `gone`: QEMU has ended.
 * `claimed` and `ended`: an operator has said `here` or `end`. A fault: the source has withdrawn the migration, by a
 * call or by the stream, and the fault has its reason.
 */
type Word = MigrationFault | "granted" | "started" | "gone" | "claimed" | "ended" | "stopping";

/**
 * Tells the source that the guest is loaded, and waits until the source grants or withdraws the guest. The source may
 * have the only other copy, or none any more. So neither a link that is down nor the lapse of time ends this state:
 * only the source, the end of QEMU, an operator, or somebody who starts the guest does.
 */
export async function awaitGrant(state: State<"loaded">, cx: DestinationContext): Promise<Ends> {
  const { guest, receiver } = state;
  if (receiver !== undefined) tellLoaded(state, receiver, cx);
  // the record `running` is prepared as if the guest were granted running, as most guests are. While the guest is
  // stopped, only a rename is then left to do
  void cx.journal.prepare(cx.id, destinationRecord(cx, "running", guest, { postcopy: state.postcopy, paused: false }));
  const word = state.isStarted === true ? "started" : await nextWord(state, cx);
  if (word instanceof MigrationFault) return refusing("withdrawn", state, word);
  const whole = wholeOf(state);
  switch (word) {
    case "granted": {
      const grant = await cx.granted.promise;
      if (!destinationMayRun(cx.journal.latest(cx.id), grant, tokenText(cx.token)))
        throw new MigrationFault("internal", "The journal does not let the guest be started here");
      return { kind: afterDestination("loaded", "granted"), ...whole, grant, isMarked: false };
    }
    case "claimed":
      cx.log.warn("the operator starts the guest here, although its source has not granted it");
      return {
        kind: afterDestination("loaded", "granted"),
        ...whole,
        grant: ownGrant(cx),
        isMarked: false,
      };
    case "started": {
      const { postcopy } = state;
      await noteStarted(guest, postcopy, cx);
      if (postcopy === undefined) return { kind: afterDestination("loaded", "started") };
      return { kind: afterDestination("loaded", "startedPulling"), guest, postcopy, ...(receiver && { receiver }) };
    }
    case "ended": {
      const fault = new MigrationFault("cancelled", "The operator of this host ended the copy");
      // the operator has ended the copy, so it is not kept any more, whether or not the source has heard the refusal
      return { ...refusing("withdrawn", state, fault), isWhole: false };
    }
    case "gone":
      return refusing("gone", state, await guest.endFault());
    case "stopping": {
      const fault = MigrationFault.from(cx.stopping.reason);
      // a source that is in contact takes its guest back now; any other source finds the copy with the next agent
      if (receiver?.channel.isCut === false) return refusing("withdrawn", state, fault);
      throw fault;
    }
  }
}

/** Makes the grant that stands for an operator's claim: the guest is to run here. */
export const ownGrant = (cx: DestinationContext): OwnershipGrant => ({
  token: tokenText(cx.token),
  epoch: EPOCH,
  paused: false,
});

/** Makes the state of a refusal. */
function refusing(outcome: "withdrawn" | "gone", state: State<"loaded">, fault: MigrationFault): State<"refusing"> {
  // in post-copy pages are missing, so there is no whole copy to keep
  const isWhole = outcome === "withdrawn" && state.postcopy === undefined;
  return { kind: afterDestination("loaded", outcome), fault, undo: undoWhole(state), isWhole, mayBeRunning: false };
}

/** Tells the source that the guest is loaded, and listens for the source's grant on the stream. */
function tellLoaded({ guest, loadedAtUs }: State<"loaded">, receiver: Receiver, cx: DestinationContext): void {
  receiver.outlivesCancel();
  receiver.onVerify = (request) => answerDigests(guest, receiver, cx, request);
  // the copy stays however long the link is down, and the grant may also come by a call
  receiver.channel.setPatience(Number.POSITIVE_INFINITY);
  receiver.channel.send({
    kind: "loaded",
    lastSequence: receiver.replay.sequence,
    lastByteAtUs: receiver.postcopy?.packagedAtUs || receiver.replay.lastByteAtUs,
    loadedAtUs,
  });
  receiver.grant.promise.then(({ token, epoch, paused }) => {
    const grant = { token: tokenText(token), epoch, paused };
    if (grant.token === tokenText(cx.token) && epoch === EPOCH) cx.granted.resolve(grant);
    else cx.log.error("the source sent a grant that is not this migration's; it is ignored");
  });
}

/** Waits for whatever ends this state first. */
async function nextWord({ guest, receiver }: State<"loaded">, cx: DestinationContext): Promise<Word> {
  const over = new AbortController();
  const claim = cx.claims.ask().then((one): Word => (one === "here" ? "claimed" : "ended"));
  try {
    return await Promise.race([
      cx.granted.promise.then((): Word => "granted"),
      onceAborted(cx.withdrawn, over.signal).then((): Word => MigrationFault.from(cx.withdrawn.reason)),
      onceAborted(cx.stopping, over.signal).then((): Word => "stopping"),
      guest.ended.then((): Word => "gone"),
      ...(receiver === undefined ? [] : [receiver.gaveUp.promise]),
      onceStarted(guest, over.signal).then((): Word => "started"),
      claim,
    ]);
  } finally {
    over.abort();
    cx.claims.forget();
  }
}
