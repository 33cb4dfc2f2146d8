/**
 * Makes frames and gives them to the channel. A frame has page records from the FrameSource, or bytes of the
 * VerbatimQueue as they are. A frame is made only when the channel, the credit, the pacer and a free slot allow it, so
 * that a page is chosen and encoded as late as possible.
 *
 *     free ──filled──> encoding ──compressed, or as it is──> ready ──its turn──> sending ──taken by the channel──> free
 *
 * Invariants:
 *
 * - Frames go to the channel in the order of `line`, and a frame gets its number only then.
 * - A frame of requested pages goes before the frames that are still being compressed. It is not compressed, and it
 *   needs no credit.
 * - The head, the discards and the package go before the pages that are pending; what follows RAM goes after all pages.
 *
 * Not its job: which pages go next (FrameSource), which compression a frame gets (CompressionChooser), and to keep a
 * frame until the destination has acknowledged it (shared/link/resume/).
 */
import type { Timer } from "../../shared/runtime/clock.ts";
import { FrameEncoder } from "./frame-encoder.ts";
import { countSent, makeSlot, type SentBytes, type Slot, takeCounts } from "./frame-slot.ts";
import type { FrameSource } from "./frame-source.ts";
import { InFlight } from "./in-flight.ts";
import type { SenderParts } from "./sender-parts.ts";
import { HEAD_ROOM_BYTES } from "./source-memory.ts";
import { type VerbatimKind, VerbatimQueue } from "./verbatim-queue.ts";

/** The most frames that one pump() makes. After these the event loop reads sockets before the next frame is made. */
const FRAMES_A_PUMP = 8;

export class FrameSender {
  /** Encoded bytes that were given to the channel, by what they carry. */
  readonly sent: SentBytes = { zero: 0, full: 0, delta: 0, head: 0, device: 0 };
  /** True while no pages are sent but those for which the guest waits. Verbatim bytes are sent all the same. */
  pagesHeld = false;
  /**
   * Moving average of the time to choose and encode one page, microseconds. It starts at 1.5 and not at an integer, so
   * that V8 has a double in this field from the beginning: with the first fraction V8 would change the field's
   * representation, and throw away the code that was compiled for it
   * (docs/design/warm-up.md#what-the-warm-up-must-contain).
   */
  microsPerPage = 1.5;
  /** How many frames were made. Once all of these have been given to the channel, it is the number of the last one. */
  sequence = 0;

  private readonly parts: SenderParts;
  private readonly verbatim = new VerbatimQueue();
  private readonly slots: Slot[];
  /** Slots whose frames were made and not given to the channel, in the order in which they go. */
  private readonly line: Slot[] = [];
  private readonly flight: InFlight;
  /** Compresses frames, and counts their bytes before and after compression. */
  readonly encoder: FrameEncoder;
  /** True while the channel takes no more. */
  private blocked = false;
  /** True while pump() makes frames. */
  private building = false;
  private stopped = false;
  private timer: Timer | undefined;
  private idleWaiters: (() => void)[] = [];
  /** True once hurry() was called: the guest is stopped, and every millisecond counts. */
  private urgent = false;
  /** Where pages come from now. */
  private source: FrameSource;

  constructor(parts: SenderParts) {
    this.parts = parts;
    this.flight = new InFlight(parts);
    this.encoder = new FrameEncoder({ ...parts, flight: this.flight, onEncoded: (slot) => this.encoded(slot) });
    this.source = parts.source;
    this.slots = parts.buffers.map(makeSlot);
  }

  /**
   * Queues bytes to be sent as they are. Bytes of the kind `device` go after all pending pages, other bytes before
   * them.
   */
  sendVerbatim(bytes: Uint8Array, kind: VerbatimKind): void {
    this.verbatim.push(bytes, kind);
    this.pump();
  }

  /**
   * Makes the credit shallow. Resolves when no more than this credit is on its way.
   * @param frameBytes the length of later frames, bytes
   */
  beShallow(frameBytes: number): Promise<void> {
    return this.flight.beShallow(frameBytes);
  }

  /** Takes pages from another source from now on. These pages go after the verbatim bytes that were queued before. */
  takeFrom(source: FrameSource): void {
    this.source = source;
    this.pump();
  }

  /**
   * Called when the guest is stopped: a frame is now compressed only if that brings the frame to the destination
   * sooner.
   */
  hurry(): void {
    this.urgent = true;
    this.pump();
  }

  /** How many encoded bytes were given to the channel. */
  get sentBytes(): number {
    return this.flight.sentBytes;
  }

  /** How many encoded bytes are in flight or are being compressed; the latter are an estimate. */
  get inFlightBytes(): number {
    return this.flight.bytes;
  }

  /** How many zero pages are in flight. */
  get inFlightZeroPages(): number {
    return this.flight.zeroPages;
  }

  /** Resolves when all pending pages and queued bytes were given to the channel, or the sender is stopped. */
  flushed(): Promise<void> {
    if (this.isIdle) return Promise.resolve();
    return new Promise((resolve) => this.idleWaiters.push(resolve));
  }

  /**
   * Takes an acknowledgement.
   * @throws MigrationFault `peer-invalid` when it acknowledges what was never sent, or less than an earlier one did
   */
  acknowledge(sequence: number, appliedBytes: number): void {
    this.flight.acknowledge(sequence, appliedBytes, this.sequence);
    this.pump();
  }

  /** Sends nothing any more, and resolves what flushed() and beShallow() have returned. */
  stop(): void {
    this.stopped = true;
    this.parts.clock.cancel(this.timer);
    this.flight.stop();
    for (const resolve of this.idleWaiters.splice(0)) resolve();
  }

  /** Makes and sends as many frames as the link has room for. */
  pump(): void {
    // a closed channel calls the callback of send() before send() returns, and that callback calls pump(): no frame may
    // be made while pump() makes another
    if (this.stopped || this.building) return;
    this.building = true;
    const pagesBefore = this.parts.pages.pendingCount;
    while (this.source.hasUrgent && this.buildUrgent());
    for (let frames = 0; this.mayBuild(); frames++) {
      if (frames === FRAMES_A_PUMP) {
        this.wakeIn(0);
        break;
      }
      if (!this.build()) break;
    }
    this.building = false;
    if (this.parts.pages.pendingCount < pagesBefore) this.parts.onRoom();
    if (this.idleWaiters.length > 0 && this.isIdle) for (const resolve of this.idleWaiters.splice(0)) resolve();
  }

  private get isIdle(): boolean {
    return this.line.length === 0 && this.verbatim.isEmpty && this.source.isEmpty;
  }

  /**
   * True if channel, credit and pacer allow another frame. Notes in the chooser when the credit is used up. Sets a
   * timer that calls pump() again when the pacer wants a wait.
   */
  private mayBuild(): boolean {
    if (this.blocked) return false;
    if (!this.flight.hasRoom()) {
      this.parts.chooser.linkWasFull();
      return false;
    }
    const waitMs = this.parts.pacer.waitMs(this.parts.clock.monotonicMs());
    if (waitMs > 0) this.wakeIn(waitMs);
    return waitMs === 0;
  }

  private wakeIn(ms: number): void {
    if (this.timer !== undefined) return;
    this.timer = this.parts.clock.after(ms, () => {
      this.timer = undefined;
      this.pump();
    });
  }

  /** Makes the next frame. @returns false if there is no free slot, or nothing to send now */
  private build(): boolean {
    const slot = this.freeSlot(1 + this.source.reservedBuffers);
    if (slot === undefined) {
      if (this.line.length > this.slots.length / 2) this.parts.chooser.encoderWasFull();
      return false;
    }
    if (!this.verbatim.isEmpty && (this.verbatim.kind !== "device" || this.source.isEmpty)) {
      slot.kind = this.verbatim.kind;
      slot.at = slot.buffer.raw;
      slot.rawLength = this.verbatim.take(this.parts.kernels.memory, slot.at, this.parts.frameBytes);
      takeCounts(slot, undefined);
    } else if (!this.fill(slot)) {
      return false;
    }
    this.sequence++;
    this.line.push(slot);
    if (slot.kind === "pages") this.noteMade(slot.rawLength);
    if (this.encoder.encode(slot, this.urgent)) this.ready(slot);
    return true;
  }

  private noteMade(rawLength: number): void {
    const { chooser, clock, meter } = this.parts;
    chooser.made(rawLength, clock.nowUs(), meter.peakBytesPerSecond);
  }

  /** @returns a free slot; undefined when fewer than `atLeast` are free */
  private freeSlot(atLeast: number): Slot | undefined {
    let free = 0;
    let found: Slot | undefined;
    for (const slot of this.slots) {
      if (slot.state !== "free") continue;
      free++;
      found ??= slot;
    }
    return free < atLeast ? undefined : found;
  }

  /**
   * Makes a frame of pages for which the guest waits. The frame goes before the frames that are being compressed, and
   * is not compressed.
   * @returns false if there is no such page or no free slot, or if other bytes go first
   */
  private buildUrgent(): boolean {
    const { source } = this;
    const slot = this.freeSlot(1);
    // the discards and the package go first, whatever the guest waits for; the end of RAM waits for all pages anyway
    const begins = !this.verbatim.isEmpty && this.verbatim.kind !== "device";
    if (slot === undefined || begins || this.line.some(({ kind }) => kind !== "pages")) return false;
    slot.kind = "pages";
    slot.rawLength = source.fillUrgent(slot.buffer.raw);
    slot.at = source.frameAt;
    if (slot.rawLength === 0) return false;
    takeCounts(slot, source.frame);
    this.sequence++;
    this.line.unshift(slot);
    this.encoder.seal(slot);
    this.ready(slot);
    return true;
  }

  /** Fills the slot with the pages that are next. @returns false if there are none, or none may be sent now */
  private fill(slot: Slot): boolean {
    const { pages, clock } = this.parts;
    const { source } = this;
    if (this.pagesHeld) return false;
    const quietMs = source.quietMs(clock.monotonicMs());
    this.flight.isUnderWay = source.isUnderWay;
    if (quietMs > 0) {
      this.wakeIn(quietMs);
      return false;
    }
    const before = pages.pendingCount;
    const startUs = clock.nowUs();
    slot.kind = "pages";
    slot.rawLength = source.fill(slot.buffer.raw);
    slot.at = source.frameAt;
    takeCounts(slot, source.frame);
    const filled = before - pages.pendingCount;
    if (filled >= 32) this.microsPerPage += 0.1 * ((clock.nowUs() - startUs) / filled - this.microsPerPage);
    return slot.rawLength > 0;
  }

  private encoded(slot: Slot): void {
    if (this.stopped) return;
    this.ready(slot);
    this.pump();
  }

  /** Marks the slot's frame as ready, and gives the channel all ready frames at the front of the line. */
  private ready(slot: Slot): void {
    slot.state = "ready";
    while (this.line[0]?.state === "ready") this.give(this.line.shift()!);
  }

  /** Numbers the frame and gives it to the channel. The slot is free again when the channel has taken the frame. */
  private give(slot: Slot): void {
    const { kernels, channel, pacer } = this.parts;
    const from = slot.compressed ? slot.buffer.encoded : slot.at;
    slot.state = "sending";
    const sequence = this.sequence - this.line.length;
    this.flight.sent(sequence, slot.length, slot.zeroPages);
    countSent(this.sent, slot);
    pacer.sent(slot.length);
    const more = channel.send(
      {
        kind: "frame",
        sequence,
        frameKind: slot.kind === "head" || slot.kind === "device" ? "verbatim" : slot.kind,
        codec: slot.compressed ? "zstd" : "none",
        rawLength: slot.rawLength,
        checksum: slot.checksum,
        body: kernels.memory.subarray(from, from + slot.length),
        headRoom: HEAD_ROOM_BYTES,
      },
      () => {
        slot.state = "free";
        this.pump();
      },
    );
    this.parts.onSent(slot.length);
    if (!more && !this.blocked) {
      this.blocked = true;
      void channel.drained().then(() => {
        this.blocked = false;
        this.pump();
      });
    }
  }
}
