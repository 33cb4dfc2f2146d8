/**
 * The buffers in which QEMU's stream is written before it goes to QEMU's socket. One is filled at a time. A buffer that
 * was given to the socket is free again when QEMU has taken it, so a QEMU that takes nothing stops the writing.
 */
import type { Socket } from "node:net";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { StreamWriter } from "../../shared/qemu/stream/stream-writer.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { address, PAGE_SIZE } from "../../shared/units.ts";

/** The length of an output buffer, bytes. */
const OUTPUT_BYTES = 512 * 1024;
/** How many output buffers there are. When QEMU has all of them, the channel is paused. */
const OUTPUTS = 4;
/**
 * The most that a record takes in an output buffer, bytes: header, block name and page, and the start or the end of a
 * section.
 */
const RECORD_BYTES_MAX = 8 + 256 + PAGE_SIZE + 64;

export interface OutputBuffersOptions<Frame> {
  readonly kernels: PageKernels;
  /** The address of the first buffer in the kernels' memory. */
  readonly at: number;
  readonly socket: Socket;
  readonly clock: Clock;
  /**
   * Called when QEMU has taken a buffer.
   *
   * @param frame the frame that has ended in the buffer; undefined where none has
   */
  readonly onTaken: (frame: Frame | undefined) => void;
}

export class OutputBuffers<Frame> {
  /** The bytes of memory that all buffers take. */
  static readonly regionBytes = OUTPUTS * OUTPUT_BYTES;
  readonly writer: StreamWriter;
  /** How many buffers QEMU has not taken yet. */
  writesPending = 0;
  /** When QEMU took a buffer the last time, microseconds on this host's clock; 0 before the first buffer. */
  lastByteAtUs = 0;
  private readonly options: OutputBuffersOptions<Frame>;
  /** The addresses of the buffers that are free. */
  private readonly free: number[] = [];
  /** The address of the buffer that is being filled; -1 where there is none. */
  private output = -1;

  constructor(options: OutputBuffersOptions<Frame>) {
    this.options = options;
    const { kernels, at } = options;
    this.writer = new StreamWriter(kernels.memory, (to, from, length) =>
      kernels.copy(address(to), address(from), length),
    );
    for (let i = 0; i < OUTPUTS; i++) this.free.push(at + i * OUTPUT_BYTES);
  }

  /** True if the next record fits. Begins another buffer where that is needed, unless QEMU has all of them. */
  get hasRoom(): boolean {
    return (this.output >= 0 && this.writer.room(RECORD_BYTES_MAX)) || this.begin();
  }

  /**
   * Writes `bytes` from index `from` on, as far as there is room.
   * @returns the index of the first byte that was not written; the length of `bytes` if all were written
   */
  copy(bytes: Uint8Array, from: number): number {
    let at = from;
    while (at < bytes.length && this.hasRoom) at += this.writer.bytes(bytes.subarray(at, at + RECORD_BYTES_MAX));
    return at;
  }

  /**
   * Writes [from, end) of the kernels' memory, as far as there is room.
   * @returns the address of the first byte that was not written; `end` if all bytes were written
   */
  move(from: number, end: number): number {
    let at = from;
    while (at < end && this.hasRoom) {
      const length = Math.min(end - at, RECORD_BYTES_MAX);
      this.writer.verbatim(at, length);
      at += length;
    }
    return at;
  }

  /** Gives the buffer that is being filled to QEMU. @param frame the frame that ends in it; missing where none ends */
  flush(frame?: Frame): void {
    const { output } = this;
    if (output < 0) return;
    this.output = -1;
    this.writesPending++;
    const { kernels, socket, clock, onTaken } = this.options;
    const { buffer, byteOffset } = kernels.memory;
    socket.write(Buffer.from(buffer, byteOffset + output, this.writer.position - output), (error) => {
      this.writesPending--;
      if (error) return; // the socket's own error event tells why
      this.lastByteAtUs = clock.nowUs();
      this.free.push(output);
      onTaken(frame);
    });
  }

  private begin(): boolean {
    this.flush();
    const output = this.free.pop();
    if (output === undefined) return false;
    this.output = output;
    this.writer.begin(output, output + OUTPUT_BYTES);
    return true;
  }
}
