/** One frame on its way from the scheduler to the channel, and what it carries. */

import type { KindCounts } from "./kind-counts.ts";
import type { FrameBuffer } from "./source-memory.ts";
import type { VerbatimKind } from "./verbatim-queue.ts";

/** Bytes on the link by what they carried, encoded. */
export interface SentBytes {
  zero: number;
  full: number;
  delta: number;
  /** Of QEMU's stream ahead of the pages, and behind them: the device state. */
  head: number;
  device: number;
}

export interface Slot {
  readonly buffer: FrameBuffer;
  state: "free" | "encoding" | "ready" | "sending";
  kind: "pages" | VerbatimKind;
  rawLength: number;
  length: number;
  compressed: boolean;
  readonly checksum: Uint8Array;
  zeroPages: number;
  zeroBytes: number;
  fullBytes: number;
  deltaBytes: number;
}

export const makeSlot = (buffer: FrameBuffer): Slot => ({
  buffer,
  state: "free",
  kind: "pages",
  rawLength: 0,
  length: 0,
  compressed: false,
  checksum: new Uint8Array(8),
  zeroPages: 0,
  zeroBytes: 0,
  fullBytes: 0,
  deltaBytes: 0,
});

/** What the slot's frame holds; undefined: no pages. */
export function takeCounts(slot: Slot, frame: KindCounts | undefined): void {
  slot.zeroPages = frame?.zeroPages ?? 0;
  slot.zeroBytes = frame?.zeroBytes ?? 0;
  slot.fullBytes = frame?.fullBytes ?? 0;
  slot.deltaBytes = frame?.deltaBytes ?? 0;
}

export function countSent(sent: SentBytes, slot: Slot): void {
  if (slot.kind !== "pages") {
    sent[slot.kind === "package" ? "device" : slot.kind === "discards" ? "head" : slot.kind] += slot.length;
    return;
  }
  // zstd mixes the kinds of a frame: its bytes are shared out as they were before
  const share = slot.length / Math.max(1, slot.zeroBytes + slot.fullBytes + slot.deltaBytes);
  sent.zero += slot.zeroBytes * share;
  sent.full += slot.fullBytes * share;
  sent.delta += slot.deltaBytes * share;
}
