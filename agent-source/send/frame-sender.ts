import { MigrationFault } from "../../shared/fault.ts";
import { countSent, makeSlot, type SentBytes, type Slot, takeCounts } from "./frame-slot.ts";
import type { FrameSource } from "./frame-source.ts";
import { InFlight } from "./in-flight.ts";
import type { SenderParts } from "./sender-parts.ts";
import { HEAD_ROOM_BYTES } from "./source-memory.ts";
import { type VerbatimKind, VerbatimQueue } from "./verbatim-queue.ts";

/** Fewer raw bytes than this are not worth a worker's round trip. */
const COMPRESS_MIN_BYTES = 2048;
/** Frames of one pump without letting the event loop read sockets. */
const FRAMES_A_PUMP = 8;

export class FrameSender {
  readonly sent: SentBytes = { zero: 0, full: 0, delta: 0, head: 0, device: 0 };
  /** No page is sent, only what is verbatim. */
  pagesHeld = false;
  rawCompressedBytes = 0;
  encodedCompressedBytes = 0;
  /** Time to choose and encode one page, microseconds, lately. Begins with a fraction: V8 would make it another field with the first. */
  microsPerPage = 1.5;
  sequence = 0;

  private readonly parts: SenderParts;
  private readonly verbatim = new VerbatimQueue();
  private readonly slots: Slot[];
  /** Slots in order of sequence, from being filled to being sent. */
  private readonly line: Slot[] = [];
  private readonly flight: InFlight;
  private blocked = false;
  private building = false;
  private stopped = false;
  private timer: NodeJS.Timeout | undefined;
  private lastCompressedUs = 0;
  private idleWaiters: (() => void)[] = [];
  /** The guest is stopped: every millisecond counts. */
  private urgent = false;
  private source: FrameSource;

  constructor(parts: SenderParts) {
    this.parts = parts;
    this.flight = new InFlight(parts);
    this.source = parts.source;
    this.slots = parts.buffers.map(makeSlot);
  }

  /** Queues bytes to be sent as they are: at once, or device state behind all that is pending. */
  sendVerbatim(bytes: Uint8Array, kind: VerbatimKind): void {
    this.verbatim.push(bytes, kind);
    this.pump();
  }

  /** From now on little is on its way. Resolves when that is so. */
  beShallow(frameBytes: number): Promise<void> {
    return this.flight.beShallow(frameBytes);
  }

  /** Takes pages from another source from now on. They go after the verbatim bytes that were queued before. */
  takeFrom(source: FrameSource): void {
    this.source = source;
    this.pump();
  }

  /** The guest is stopped: a frame is compressed only where that brings it to the destination sooner. */
  hurry(): void {
    this.urgent = true;
    this.pump();
  }

  /** Encoded bytes given to the channel. */
  get sentBytes(): number {
    return this.flight.sentBytes;
  }

  get inFlightBytes(): number {
    return this.flight.bytes;
  }

  /** Given to the channel and not acknowledged. */
  get inFlightZeroPages(): number {
    return this.flight.zeroPages;
  }

  /** Resolves when everything pending was given to the channel. */
  flushed(): Promise<void> {
    if (this.isIdle) return Promise.resolve();
    return new Promise((resolve) => this.idleWaiters.push(resolve));
  }

  /** An acknowledgement came. @throws MigrationFault `peer-invalid` when it acknowledges what was never sent */
  acknowledge(sequence: number, appliedBytes: number): void {
    this.flight.acknowledge(sequence, appliedBytes, this.sequence);
    this.pump();
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    this.flight.stop();
    for (const resolve of this.idleWaiters.splice(0)) resolve();
  }

  /** Builds and sends what the link has room for. */
  pump(): void {
    // room in the arena lets capture go on, which pumps: a frame that is being built must not be begun twice
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
    this.timer = setTimeout(() => {
      this.timer = undefined;
      this.pump();
    }, ms);
  }

  private build(): boolean {
    const slot = this.freeSlot(1 + this.source.reservedBuffers);
    if (slot === undefined) {
      if (this.line.length > this.slots.length / 2) this.parts.chooser.encoderWasFull();
      return false;
    }
    if (!this.verbatim.isEmpty && (this.verbatim.kind !== "device" || this.source.isEmpty)) {
      slot.kind = this.verbatim.kind;
      slot.rawLength = this.verbatim.take(this.parts.kernels.memory, slot.buffer.raw, this.parts.frameBytes);
      takeCounts(slot, undefined);
    } else if (!this.fill(slot)) {
      return false;
    }
    this.sequence++;
    this.line.push(slot);
    if (slot.kind === "pages") this.noteMade(slot.rawLength);
    this.encode(slot);
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

  /** Pages that the guest waits for go ahead of the frames that are being compressed, and as they are. */
  private buildUrgent(): boolean {
    const { source } = this;
    const slot = this.freeSlot(1);
    // what post-copy begins with comes first, whatever is waited for; its end waits for all pages anyway
    const begins = !this.verbatim.isEmpty && this.verbatim.kind !== "device";
    if (slot === undefined || begins || this.line.some(({ kind }) => kind !== "pages")) return false;
    slot.kind = "pages";
    slot.rawLength = source.fillUrgent(slot.buffer.raw);
    if (slot.rawLength === 0) return false;
    takeCounts(slot, source.frame);
    this.sequence++;
    this.line.unshift(slot);
    this.seal(slot);
    this.ready(slot);
    return true;
  }

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
    takeCounts(slot, source.frame);
    const filled = before - pages.pendingCount;
    if (filled >= 32) this.microsPerPage += 0.1 * ((clock.nowUs() - startUs) / filled - this.microsPerPage);
    return slot.rawLength > 0;
  }

  private seal(slot: Slot): void {
    const { kernels } = this.parts;
    const { raw, encoded } = slot.buffer;
    kernels.checksum(raw, slot.rawLength, encoded);
    slot.checksum.set(kernels.memory.subarray(encoded, encoded + 8));
    slot.state = "encoding";
    slot.length = slot.rawLength;
    slot.compressed = false;
  }

  private encode(slot: Slot): void {
    const { chooser, compress, clock } = this.parts;
    const { raw, encoded, byteLength } = slot.buffer;
    this.seal(slot);
    const level = this.levelFor(slot.rawLength);
    if (level === undefined) {
      this.ready(slot);
      return;
    }
    const expected = Math.ceil(slot.rawLength / chooser.recentRatio);
    this.flight.encodingBytes += expected;
    const startUs = clock.nowUs();
    // what does not become smaller is sent as it is
    const limit = Math.min(byteLength, slot.rawLength - (slot.rawLength >> 5));
    compress(raw, slot.rawLength, encoded, limit, level)
      .then((length) => {
        this.flight.encodingBytes -= expected;
        if (this.stopped) return;
        const nowUs = clock.nowUs();
        const micros = nowUs - Math.max(startUs, this.lastCompressedUs);
        this.lastCompressedUs = nowUs;
        const encodedBytes = length < 0 ? slot.rawLength : length;
        chooser.note({ rawBytes: slot.rawLength, encodedBytes, micros });
        if (length >= 0) {
          slot.compressed = true;
          slot.length = length;
          this.rawCompressedBytes += slot.rawLength;
          this.encodedCompressedBytes += length;
        }
        this.ready(slot);
        this.pump();
      })
      .catch((thrown: unknown) => {
        this.parts.onFault(MigrationFault.from(thrown));
      });
  }

  private levelFor(rawLength: number): number | undefined {
    const { chooser, meter } = this.parts;
    if (rawLength < COMPRESS_MIN_BYTES) return undefined;
    if (this.urgent && !chooser.paysOff(rawLength, meter.bytesPerSecond)) return undefined;
    return chooser.level(meter.bytesPerSecond);
  }

  private ready(slot: Slot): void {
    slot.state = "ready";
    while (this.line[0]?.state === "ready") this.give(this.line.shift()!);
  }

  private give(slot: Slot): void {
    const { kernels, channel, pacer } = this.parts;
    const { raw, encoded } = slot.buffer;
    const from = slot.compressed ? encoded : raw;
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
