/** Takes the body of a frame off its message: decompressed, and checked against its checksum, in one buffer of shared memory. */
import { frameBufferBytes } from "../../shared/codec/page-frame.ts";
import { decompressInto } from "../../shared/codec/zstd.ts";
import { MigrationFault } from "../../shared/fault.ts";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { Contract, Frame } from "../../shared/protocol/messages.ts";
import { address } from "../../shared/units.ts";
import { invalid } from "./invalid-stream.ts";

const WORD_BYTES = 8;
const CHECKSUM_AT = KERNEL_RESERVED_BYTES;
const FRAME_ROOM = KERNEL_RESERVED_BYTES + 64;

type Agreed = Pick<Contract, "frameBytes" | "codecs">;

export class FrameOpener {
  /** Where the current frame is: congruent to where its body came from, see place(). */
  at = FRAME_ROOM;
  /** Longest frame, encoded or not. */
  readonly bytesMax: number;
  private readonly agreed: Agreed;
  private readonly kernels: PageKernels;
  private readonly memory: Uint8Array;

  /** Bytes of memory that it uses, from the first. */
  static regionBytes = (frameBytes: number): number => FRAME_ROOM + WORD_BYTES + frameBufferBytes(frameBytes);

  constructor(kernels: PageKernels, agreed: Agreed) {
    this.kernels = kernels;
    this.memory = kernels.memory;
    this.agreed = agreed;
    this.bytesMax = frameBufferBytes(agreed.frameBytes);
  }

  /** Its bytes are at `at` then, until the next. @throws MigrationFault `peer-invalid`, `checksum-mismatch` */
  open({ sequence, codec, rawLength, body, checksum }: Frame): void {
    const { codecs, frameBytes } = this.agreed;
    if (rawLength > this.bytesMax) throw invalid(`a frame of ${rawLength} bytes; agreed on ${frameBytes}`);
    if (codec === "zstd") {
      if (!codecs.includes("zstd")) throw invalid("a compressed frame, which was not negotiated");
      if (body.length > rawLength) throw invalid(`${body.length} compressed bytes for a frame of ${rawLength}`);
      this.at = FRAME_ROOM;
      const length = decompressInto(this.memory.subarray(this.at, this.at + rawLength), body);
      if (length !== rawLength) throw invalid(`a frame that decompresses to ${length} bytes, not ${rawLength}`);
    } else {
      if (body.length !== rawLength) throw invalid(`a frame of ${body.length} bytes that says ${rawLength}`);
      this.place(body);
    }
    this.kernels.checksum(address(this.at), rawLength, address(CHECKSUM_AT));
    if (Buffer.compare(this.memory.subarray(CHECKSUM_AT, CHECKSUM_AT + 8), checksum) !== 0)
      throw new MigrationFault(
        "checksum-mismatch",
        `The checksum of frame ${sequence} is wrong: it was damaged on the way`,
      );
  }

  /**
   * Copies a body that is not compressed, to where it is as far off a multiple of 8 as it comes: into shared memory set()
   * goes byte by byte otherwise. @see test/bench/README.md
   */
  private place(body: Uint8Array): void {
    this.at = FRAME_ROOM + ((body.byteOffset - this.memory.byteOffset - FRAME_ROOM) & (WORD_BYTES - 1));
    this.memory.set(body, this.at);
  }
}
