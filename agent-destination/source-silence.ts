/** Notices a source that says nothing, although the link to it is up. */
import type { Receiver } from "./receiver.ts";

/** So often within the limit it is looked whether something has come. */
const LOOKS = 30;

/**
 * Resolves when nothing at all has come for `limitMs` milliseconds: no frame, no probe, no ping. A source pings four times
 * a second as long as it has a stream, whatever its guest, its QEMU and its disk do. Time in which the link is cut is not
 * counted, which has a limit of its own (link.giveUpAfter), and neither is time in which QEMU here does not take what
 * came, so that nothing is read. It is counted in looks and not by a clock: an agent that was stopped itself has heard
 * nobody meanwhile.
 * @param over ends the watch
 */
export function onceSilent(
  receiver: Pick<Receiver, "heard" | "channel"> & { readonly replay: { readonly isHeldBack: boolean } },
  limitMs: number,
  over: AbortSignal,
): Promise<void> {
  return new Promise((resolve) => {
    let heard = receiver.heard;
    let silent = 0;
    const timer = setInterval(() => {
      if (receiver.heard !== heard) silent = 0;
      else if (!receiver.channel.isCut && !receiver.replay.isHeldBack) silent++;
      heard = receiver.heard;
      if (silent < LOOKS) return;
      clearInterval(timer);
      resolve();
    }, limitMs / LOOKS);
    over.addEventListener("abort", () => clearInterval(timer), { once: true });
  });
}
