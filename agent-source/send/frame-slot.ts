/** A slot holds one frame from its making until the channel has taken it, with counts of what the frame carries. */

import type { Address } from "../../shared/units.ts";
import type { KindCounts } from "./kind-counts.ts";
import type { FrameBuffer } from "./source-memory.ts";
import type { VerbatimKind } from "./verbatim-queue.ts";

/** Encoded bytes that were given to the link, by what they carry. */
export interface SentBytes {
  zero: number;
  full: number;
  delta: number;
  /** The part of QEMU's stream before the first page, and post-copy's discards. */
  head: number;
  /** What follows RAM in QEMU's stream (the end of RAM, the device state), and post-copy's package. */
  device: number;
}

export interface Slot {
  readonly buffer: FrameBuffer;
  /** `encoding` and `ready` frames wait in the sender's line; `sending` frames are with the channel. */
  state: "free" | "encoding" | "ready" | "sending";
  kind: "pages" | VerbatimKind;
  /** Where the frame is before compression, in `buffer.raw`. */
  at: Address;
  /** The frame's length before compression, bytes. */
  rawLength: number;
  /** The length of the bytes that are sent: those at `buffer.encoded` if `compressed`, otherwise those at `at`. */
  length: number;
  compressed: boolean;
  /** XXH64 of the frame before compression. */
  readonly checksum: Uint8Array;
  /** This count and the next three come from the KindCounts of the frame; all are 0 in a frame without pages. */
  zeroPages: number;
  zeroBytes: number;
  fullBytes: number;
  deltaBytes: number;
}

export const makeSlot = (buffer: FrameBuffer): Slot => ({
  buffer,
  state: "free",
  kind: "pages",
  at: buffer.raw,
  rawLength: 0,
  length: 0,
  compressed: false,
  checksum: new Uint8Array(8),
  zeroPages: 0,
  zeroBytes: 0,
  fullBytes: 0,
  deltaBytes: 0,
});

/** Notes in the slot what its frame carries. @param frame undefined for a frame without pages */
export function takeCounts(slot: Slot, frame: KindCounts | undefined): void {
  slot.zeroPages = frame?.zeroPages ?? 0;
  slot.zeroBytes = frame?.zeroBytes ?? 0;
  slot.fullBytes = frame?.fullBytes ?? 0;
  slot.deltaBytes = frame?.deltaBytes ?? 0;
}

/** Adds the bytes of a frame that was given to the channel to the sums. */
export function countSent(sent: SentBytes, slot: Slot): void {
  if (slot.kind !== "pages") {
    sent[slot.kind === "package" ? "device" : slot.kind === "discards" ? "head" : slot.kind] += slot.length;
    return;
  }
  // zstd compresses all kinds of a frame together, so the frame's encoded bytes are divided in the proportion of the
  // bytes before compression
  const share = slot.length / Math.max(1, slot.zeroBytes + slot.fullBytes + slot.deltaBytes);
  sent.zero += slot.zeroBytes * share;
  sent.full += slot.fullBytes * share;
  sent.delta += slot.deltaBytes * share;
}
