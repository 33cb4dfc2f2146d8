/**
 * A frame source is what a FrameSender takes pages from: PrecopyScheduler in precopy, and PostcopyScheduler from the
 * moment at which QEMU's package has come. It chooses pages and encodes them into a frame. It knows no link and has no
 * clock.
 */
import type { Address } from "../../shared/units.ts";
import type { KindCounts } from "./kind-counts.ts";

export interface FrameSource {
  /** Pages and bytes of the frame that was made last, by kind. */
  readonly frame: KindCounts;
  /** Where the frame begins that was made last. */
  readonly frameAt: Address;
  /** True when no page is left to send. */
  readonly isEmpty: boolean;
  /** True while the guest at the destination waits for pages that are here. Always false in precopy. */
  readonly hasUrgent: boolean;
  /** How many of the sender's slots stay free for pages that the guest waits for. */
  readonly reservedBuffers: number;
  /** True once the guest runs at the destination and no longer goes from one missing page to the next. */
  readonly isUnderWay: boolean;
  /** @returns for how long only pages that the guest waits for may be sent, milliseconds; 0 if any page may be sent */
  quietMs(nowMs: number): number;
  /**
   * Makes a frame of pages that the guest waits for.
   * @param at where frameBufferBytes(frameBytes) bytes are free; the frame lies somewhere in them, from `frameAt` on
   * @returns the frame's length before compression, bytes; 0 when the guest waits for none
   */
  fillUrgent(at: Address): number;
  /**
   * Makes a frame of the pages that are next.
   * @param at where frameBufferBytes(frameBytes) bytes are free; the frame lies somewhere in them, from `frameAt` on
   * @returns the frame's length before compression, bytes; 0 when there are no pages to send now
   */
  fill(at: Address): number;
}
