/** The phase *receiving*: frames come, and go to QEMU. */
import { MigrationFault } from "../../../shared/fault.ts";
import { unlessSilent } from "../../../shared/link/resume/peer-silence.ts";
import { afterDestination } from "../../../shared/protocol/destination-states.ts";
import type { Clock } from "../../../shared/runtime/clock.ts";
import { orAborted, within } from "../../../shared/runtime/deferred.ts";
import type { Receiver } from "../../replay/receiver.ts";
import type { DestinationContext } from "../destination-context.ts";
import type { State } from "../destination-state.ts";

/**
 * The limit on a source's silence is at least this many keep-alive periods. Within two periods keep-alive finds that a
 * source agent is stopped. The link then counts as cut, and a cut has a limit of its own (`link.giveUpAfter`). With a
 * smaller number here such a source would count as silent first
 * (docs/design/link-and-resume.md#silence-over-a-link-that-is-up).
 */
const KEEP_ALIVES = 4;

/**
 * Waits while frames are passed on to QEMU, until the source has said that there are no more, or post-copy's package
 * was written to QEMU. Only in this state does a silent source end the migration. From the state *loading* on, this
 * host may have the only whole copy, and silence does not prove where the guest may run.
 */
export async function receive(state: State<"receiving">, cx: DestinationContext): Promise<State<"loading">> {
  const { guest, receiver } = state;
  const { followUpMs, link } = cx.config;
  await within(
    orAborted(receiver.begun.promise, receiver.signal),
    followUpMs,
    () =>
      new MigrationFault("peer-lost", `The source sent nothing within ${followUpMs} ms (followUp)`, { role: "source" }),
    cx.clock,
  );
  await allCame(receiver, Math.max(followUpMs, KEEP_ALIVES * link.keepAliveMs), cx.clock);
  return { kind: afterDestination("receiving", "ended"), guest, receiver };
}

/**
 * Waits until the source has sent its last frame, or post-copy's package was written to QEMU.
 * @throws MigrationFault `peer-lost` when the source says nothing for `limitMs` milliseconds
 */
function allCame(receiver: Receiver, limitMs: number, clock: Clock): Promise<unknown> {
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
    clock,
  );
}
