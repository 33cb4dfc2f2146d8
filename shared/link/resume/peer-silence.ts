/** Notices a peer that says nothing although the link to it is up. */
import type { MigrationFault } from "../../fault.ts";
import { type Clock, systemClock } from "../../runtime/clock.ts";

/** What unlessSilent() reads of a peer, again and again. */
export interface Heard {
  /** How many messages have come so far, of any kind. */
  readonly heard: number;
  /** True while the link is up and this side reads what comes. */
  readonly isRead: boolean;
}

/**
 * How many looks the limit is divided into. A peer from which nothing has come at this many looks in a row is silent.
 */
const LOOKS = 30;

/**
 * Waits for `promise` as long as the peer says anything at all: the peer may hang, or be in the wrong hands. A source
 * pings four times a second as long as it has a stream, whatever its guest, its QEMU and its disk do, and a destination
 * answers each ping (docs/design/link-and-resume.md#silence-over-a-link-that-is-up).
 *
 * Time in which the link is cut does not count, since a cut has a limit of its own (`link.giveUpAfter`). Time in which
 * this side reads nothing does not count either. Silence is counted in looks and not by a clock, because an agent that
 * was itself stopped has heard no peer meanwhile.
 * @param limitMs how long the peer may be silent, milliseconds
 * @throws the fault that `silent` makes once the peer has been silent for that long
 */
export function unlessSilent<T>(
  promise: Promise<T>,
  peer: Heard,
  limitMs: number,
  silent: () => MigrationFault,
  clock: Clock = systemClock,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let heard = peer.heard;
    let looks = 0;
    const timer = clock.every(limitMs / LOOKS, () => {
      if (peer.heard !== heard) looks = 0;
      else if (peer.isRead) looks++;
      heard = peer.heard;
      if (looks < LOOKS) return;
      clock.cancel(timer);
      reject(silent());
    });
    const ended = promise.finally(() => clock.cancel(timer));
    ended.then(resolve, reject);
  });
}
