/**
 * Makes a frame ready to be sent: computes its checksum, and has it compressed where that is worth it. Compression runs
 * on threads of its own, so compressions end in any order; FrameSender gives the frames to the channel in the order of
 * its line.
 */
import type { CompressionChooser } from "../../shared/codec/chooser.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { LinkMeter } from "../link/link-meter.ts";
import type { Slot } from "./frame-slot.ts";
import type { InFlight } from "./in-flight.ts";
import type { Compress } from "./sender-parts.ts";

/** A shorter frame is sent uncompressed, bytes: it is not worth a worker's round trip. */
const COMPRESS_MIN_BYTES = 2048;

export interface FrameEncoderOptions {
  readonly kernels: PageKernels;
  readonly compress: Compress;
  readonly chooser: CompressionChooser;
  readonly meter: LinkMeter;
  readonly clock: Clock;
  /** Counts frames that are being compressed, at the length that is expected of them. */
  readonly flight: Pick<InFlight, "encodingBytes">;
  /** Called when a compression has ended, also after the sender was stopped. */
  readonly onEncoded: (slot: Slot) => void;
  readonly onFault: (fault: MigrationFault) => void;
}

export class FrameEncoder {
  /** The bytes of all frames that were compressed, before compression. */
  rawBytes = 0;
  /** The bytes of all frames that were compressed, after compression. */
  encodedBytes = 0;
  /** When the last compression ended, microseconds. */
  private lastEndUs = 0;
  private readonly options: FrameEncoderOptions;

  constructor(options: FrameEncoderOptions) {
    this.options = options;
  }

  /** Computes the checksum of the slot's frame, and makes it a frame that is sent as it is. */
  seal(slot: Slot): void {
    const { kernels } = this.options;
    const { encoded } = slot.buffer;
    // the kernel needs a place in its memory, and `encoded` has nothing in it before compression
    kernels.checksum(slot.at, slot.rawLength, encoded);
    slot.checksum.set(kernels.memory.subarray(encoded, encoded + 8));
    slot.state = "encoding";
    slot.length = slot.rawLength;
    slot.compressed = false;
  }

  /**
   * Seals the slot's frame, and has it compressed where that is worth it.
   * @param isUrgent true while the guest is stopped: a frame is compressed only if it then reaches the destination
   *   sooner
   * @returns true if the frame is ready as it is; false if onEncoded() will be called
   */
  encode(slot: Slot, isUrgent: boolean): boolean {
    this.seal(slot);
    const level = this.levelFor(slot.rawLength, isUrgent);
    if (level === undefined) return true;
    const { chooser, compress, clock, flight, onEncoded, onFault } = this.options;
    const { encoded, byteLength } = slot.buffer;
    const expected = Math.ceil(slot.rawLength / chooser.recentRatio);
    flight.encodingBytes += expected;
    const startUs = clock.nowUs();
    // a frame that does not become smaller by a thirty-second (3 %) is sent as it is
    const limit = Math.min(byteLength, slot.rawLength - (slot.rawLength >> 5));
    compress(slot.at, slot.rawLength, encoded, limit, level)
      .then((length) => {
        flight.encodingBytes -= expected;
        this.note(slot, length, startUs);
        onEncoded(slot);
      })
      .catch((thrown: unknown) => onFault(MigrationFault.from(thrown)));
    return false;
  }

  /**
   * Notes what a compression has brought.
   * @param length of the compressed frame, bytes; negative if the frame did not become smaller
   */
  private note(slot: Slot, length: number, startUs: number): void {
    const { chooser, clock } = this.options;
    const nowUs = clock.nowUs();
    // with one worker, the compression of a frame begins when the compression of the frame before it has ended
    const micros = nowUs - Math.max(startUs, this.lastEndUs);
    this.lastEndUs = nowUs;
    chooser.note({ rawBytes: slot.rawLength, encodedBytes: length < 0 ? slot.rawLength : length, micros });
    if (length < 0) return;
    slot.compressed = true;
    slot.length = length;
    this.rawBytes += slot.rawLength;
    this.encodedBytes += length;
  }

  /** @returns zstd's level for a frame; undefined if it is to be sent as it is */
  private levelFor(rawLength: number, isUrgent: boolean): number | undefined {
    const { chooser, meter } = this.options;
    if (rawLength < COMPRESS_MIN_BYTES) return undefined;
    if (isUrgent && !chooser.paysOff(rawLength, meter.bytesPerSecond)) return undefined;
    return chooser.level(meter.bytesPerSecond);
  }
}
