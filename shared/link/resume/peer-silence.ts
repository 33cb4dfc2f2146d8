/** Notices a peer that says nothing, although the link to it is up. */
import type { MigrationFault } from "../../fault.ts";

/** A peer as whoever waits for it sees it at any moment. */
export interface Heard {
  /** Messages that came so far, of whatever kind. */
  readonly heard: number;
  /** True while the link is up and this side reads what comes. */
  readonly isRead: boolean;
}

/** So often within the limit it is looked whether something has come. */
const LOOKS = 30;

/**
 * Waits for a peer that may hang or be in the wrong hands, as long as it says anything at all. A source pings four
 * times a second as long as it has a stream, whatever its guest, its QEMU and its disk do, and a destination answers
 * each ping. Time in which the link is cut is not counted, since a cut has a limit of its own (link.giveUpAfter), and
 * neither is time in which this side reads nothing. It is counted in looks and not by a clock: an agent that was
 * stopped itself has heard nobody meanwhile.
 * @param limitMs milliseconds of silence
 * @throws the fault that `silent` makes once the peer has been silent for so long
 */
export function unlessSilent<T>(
  promise: Promise<T>,
  peer: Heard,
  limitMs: number,
  silent: () => MigrationFault,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let heard = peer.heard;
    let looks = 0;
    const timer = setInterval(() => {
      if (peer.heard !== heard) looks = 0;
      else if (peer.isRead) looks++;
      heard = peer.heard;
      if (looks < LOOKS) return;
      clearInterval(timer);
      reject(silent());
    }, limitMs / LOOKS);
    const ended = promise.finally(() => clearInterval(timer));
    ended.then(resolve, reject);
  });
}
