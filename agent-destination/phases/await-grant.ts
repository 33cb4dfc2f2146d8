import { MigrationFault } from "../../shared/fault.ts";
import { afterDestination } from "../../shared/protocol/destination-states.ts";
import { destinationMayRun } from "../../shared/protocol/ownership.ts";
import { orAborted, within } from "../../shared/runtime/deferred.ts";
import { type DestinationContext, destinationRecord, tokenText } from "../destination-context.ts";
import { type State, wholeOf } from "../destination-state.ts";
import { answerDigests } from "../digests.ts";

/** Loaded and paused, and the source knows, until it gives the guest away. */
export async function awaitGrant(state: State<"loaded">, cx: DestinationContext): Promise<State<"owning">> {
  const { guest, receiver, loadedAtUs } = state;
  if (receiver !== undefined) {
    receiver.onVerify = (request) => answerDigests(guest, receiver, cx, request);
    receiver.channel.send({
      kind: "loaded",
      lastSequence: receiver.replay.sequence,
      lastByteAtUs: receiver.postcopy?.packagedAtUs || receiver.replay.lastByteAtUs,
      loadedAtUs,
    });
    receiver.grant.promise.then(({ token, epoch, paused }) =>
      cx.granted.resolve({ token: tokenText(token), epoch, paused }),
    );
  }
  // most guests are granted running: while this one stands still the record is then only to be put in its place
  void cx.journal.prepare(cx.id, destinationRecord(cx, "running", guest, { postcopy: state.postcopy, paused: false }));
  const grant = await (receiver === undefined ? untilAsked(state, cx) : orAborted(cx.granted.promise, receiver.signal));
  const record = await cx.journal.read(cx.id);
  if (!destinationMayRun(record, grant, tokenText(cx.token)))
    throw new MigrationFault("peer-invalid", "The source sent a grant that is not this migration's", {
      role: "source",
    });
  return { kind: afterDestination("loaded", "granted"), ...wholeOf(state), grant };
}

/** Taken up from the journal: the source, if it granted the guest, asks for it. */
function untilAsked({ guest }: State<"loaded">, cx: DestinationContext) {
  const { giveUpAfterMs } = cx.config.link;
  const ended = guest.qmp.closed.then(() => {
    throw new MigrationFault("qemu-failed", "The destination's QEMU ended");
  });
  return within(
    orAborted(Promise.race([cx.granted.promise, ended]), cx.cancelled),
    giveUpAfterMs,
    () =>
      new MigrationFault(
        "peer-lost",
        `The destination agent started again, and the source did not ask for the guest within ${giveUpAfterMs} ms (link.giveUpAfter)`,
        { role: "source" },
      ),
  );
}
