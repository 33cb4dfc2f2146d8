import { MigrationFault } from "../../../shared/fault.ts";
import { unlessSilent } from "../../../shared/link/resume/peer-silence.ts";
import { afterDestination } from "../../../shared/protocol/destination-states.ts";
import { orAborted, within } from "../../../shared/runtime/deferred.ts";
import type { Receiver } from "../../replay/receiver.ts";
import type { DestinationContext } from "../destination-context.ts";
import type { State } from "../destination-state.ts";

/** A source that hangs is first found by keep-alive, within two of these, and then counts as a link that is cut. */
const KEEP_ALIVES = 4;

/**
 * Frames go to QEMU until the source says that there are no more, and QEMU has the last byte. Only here a silent source
 * ends its migration: from *loading* on this host may have the only whole copy, and silence proves nothing.
 */
export async function receive(state: State<"receiving">, cx: DestinationContext): Promise<State<"loading">> {
  const { guest, receiver } = state;
  const { followUpMs, link } = cx.config;
  await within(
    orAborted(receiver.begun.promise, receiver.signal),
    followUpMs,
    () =>
      new MigrationFault("peer-lost", `The source sent nothing within ${followUpMs} ms (followUp)`, { role: "source" }),
  );
  await allCame(receiver, Math.max(followUpMs, KEEP_ALIVES * link.keepAliveMs));
  return { kind: afterDestination("receiving", "ended"), guest, receiver };
}

/** @throws MigrationFault `peer-lost` when the source says nothing for `limitMs` milliseconds */
function allCame(receiver: Receiver, limitMs: number): Promise<unknown> {
  const last = orAborted(Promise.race([receiver.ended.promise, receiver.packaged]), receiver.signal);
  return unlessSilent(
    last,
    receiver,
    limitMs,
    () =>
      new MigrationFault(
        "peer-lost",
        `The source has said nothing for ${limitMs} ms (followUp), although the link to it is up`,
        { role: "source", advice: "See the source agent's log, and whether that agent hangs; then migrate again" },
      ),
  );
}
