/**
 * Takes the body of a frame out of its message, decompressed and checked against its checksum, into one buffer of the
 * kernels' memory. PageFrameReader and the replay read what the body contains.
 */
import { frameBufferBytes } from "../../shared/codec/page-frame.ts";
import { decompressInto } from "../../shared/codec/zstd.ts";
import { MigrationFault } from "../../shared/fault.ts";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { Contract } from "../../shared/protocol/messages.ts";
import type { Frame } from "../../shared/protocol/stream-messages.ts";
import { address } from "../../shared/units.ts";
import { invalid } from "./invalid-stream.ts";

const WORD_BYTES = 8;
/** The address to which the checksum of the current frame is written when it is computed. */
const CHECKSUM_AT = KERNEL_RESERVED_BYTES;
/** The address at which the buffer for frames begins. */
const FRAME_ROOM = KERNEL_RESERVED_BYTES + 64;

type Agreed = Pick<Contract, "frameBytes" | "codecs">;

/** Copies a frame into memory of its own, so that it can be opened after the call that brings it has returned. */
export const copyOf = (frame: Frame): Frame => ({
  ...frame,
  checksum: Buffer.from(frame.checksum),
  body: Buffer.from(frame.body),
  isLent: false,
});

/** Opens one frame after another, in the same buffer. */
export class FrameOpener {
  /** The address of the current frame in the memory: FRAME_ROOM, or up to 7 bytes after it (see place()). */
  at = FRAME_ROOM;
  /** The longest frame that is taken, bytes, compressed or not. */
  readonly bytesMax: number;
  private readonly agreed: Agreed;
  private readonly kernels: PageKernels;
  private readonly memory: Uint8Array;

  /** How many bytes of the memory a FrameOpener uses, counted from the first byte of the memory. */
  static regionBytes = (frameBytes: number): number => FRAME_ROOM + WORD_BYTES + frameBufferBytes(frameBytes);

  constructor(kernels: PageKernels, agreed: Agreed) {
    this.kernels = kernels;
    this.memory = kernels.memory;
    this.agreed = agreed;
    this.bytesMax = frameBufferBytes(agreed.frameBytes);
  }

  /**
   * Decompresses and checks a frame, which is then at `at` until the next one.
   * @throws MigrationFault `peer-invalid`, `checksum-mismatch`
   */
  open({ sequence, codec, rawLength, body, checksum }: Frame): void {
    const { codecs, frameBytes } = this.agreed;
    if (rawLength > this.bytesMax) throw invalid(`a frame of ${rawLength} bytes; agreed on ${frameBytes}`);
    if (codec === "zstd") {
      if (!codecs.includes("zstd")) throw invalid("a compressed frame, although compression was not agreed on");
      if (body.length > rawLength) throw invalid(`${body.length} compressed bytes for a frame of ${rawLength}`);
      this.at = FRAME_ROOM;
      const length = decompressInto(this.memory.subarray(this.at, this.at + rawLength), body);
      if (length !== rawLength) throw invalid(`a frame that decompresses to ${length} bytes, not ${rawLength}`);
    } else {
      if (body.length !== rawLength) throw invalid(`a frame of ${body.length} bytes that claims to have ${rawLength}`);
      this.place(body);
    }
    this.kernels.checksum(address(this.at), rawLength, address(CHECKSUM_AT));
    if (Buffer.compare(this.memory.subarray(CHECKSUM_AT, CHECKSUM_AT + 8), checksum) !== 0)
      throw new MigrationFault("checksum-mismatch", `Frame ${sequence} was damaged on the way: its checksum is wrong`);
  }

  /**
   * Copies a body that is not compressed to an address that is as far off a multiple of 8 as the body itself. At any
   * other address set() would copy into shared memory byte by byte: at under 5 GB/s in place of 34 to 37
   * (test/bench/README.md).
   */
  private place(body: Uint8Array): void {
    this.at = FRAME_ROOM + ((body.byteOffset - this.memory.byteOffset - FRAME_ROOM) & (WORD_BYTES - 1));
    this.memory.set(body, this.at);
  }
}
