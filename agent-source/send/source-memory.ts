/**
 * Lays out the one flat memory of a migration, in regions for each part of the hot path:
 *
 *     | reserved by the kernels | intake window | frame buffers, raw and encoded | zero page, arena, bases |
 *
 * The memory is reserved at once and touched as needed, so a small guest costs little. It never grows.
 */
import { frameBufferBytes } from "../../shared/codec/page-frame.ts";
import { MigrationFault } from "../../shared/fault.ts";
import { FRAME_HEAD_BYTES } from "../../shared/link/wire/frame-wire.ts";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { type Address, address, PAGE_SIZE } from "../../shared/units.ts";
import { PrecopyScheduler, type SchedulerOptions } from "./precopy-scheduler.ts";

/**
 * The size of the window into which QEMU's socket is read, bytes. It holds several reads (the socket's buffer is about
 * 208 KiB) and an item that has not come completely.
 */
export const WINDOW_BYTES = 1 << 20;
/**
 * How many frames there may be that the channel has not taken: as many as post-copy's credit allows, and one that is
 * being compressed on each of two workers. There were 6 until docs/decisions/0069.
 */
const FRAME_BUFFERS = 8;

/**
 * How many bytes are free before each frame. A link can write the head of its message into these bytes, and then need
 * not copy the frame (encodeFrame() in shared/link/wire/frame-wire.ts).
 */
export const HEAD_ROOM_BYTES = FRAME_HEAD_BYTES;

/** The two places of a frame: before compression, and after. */
export interface FrameBuffer {
  readonly raw: Address;
  readonly encoded: Address;
  /** The size of `raw`, and of `encoded`, bytes. */
  readonly byteLength: number;
}

export interface SourceMemory {
  readonly kernels: PageKernels;
  /** Where the intake window of WINDOW_BYTES begins. */
  readonly window: Address;
  readonly buffers: readonly FrameBuffer[];
  /** Where the region of the PrecopyScheduler begins. */
  readonly region: Address;
}

/** The most bytes of a memory: WebAssembly's 4 GiB less one of its pages of 64 KiB. */
const MEMORY_BYTES_MAX = 2 ** 32 - 65536;
/**
 * The length of a memory is a multiple of this, bytes, up to MEMORY_BYTES_MAX. So the memory that is kept from one
 * migration is long enough for the next one, whose strategy may need a little more. Memory that is never touched costs
 * nothing.
 */
const MEMORY_STEP_BYTES = 64 << 20;

/**
 * Makes the memory of a migration.
 * @throws MigrationFault `configuration` when arena, bases and buffers together do not fit into one memory
 */
export function createSourceMemory(
  options: SchedulerOptions,
  createKernels: (byteLength: number) => PageKernels,
): SourceMemory {
  const bufferBytes = Math.ceil((HEAD_ROOM_BYTES + frameBufferBytes(options.frameBytes)) / PAGE_SIZE) * PAGE_SIZE;
  const region = KERNEL_RESERVED_BYTES + WINDOW_BYTES + 2 * FRAME_BUFFERS * bufferBytes;
  const total = region + PrecopyScheduler.regionBytes(options);
  if (total > MEMORY_BYTES_MAX)
    throw new MigrationFault(
      "configuration",
      `memory.arena and memory.baseCache need ${total} bytes together with buffers; one migration has at most ${MEMORY_BYTES_MAX}`,
      { advice: "Lower memory.baseCache in the source agent's configuration" },
    );
  const buffers: FrameBuffer[] = [];
  for (let i = 0; i < FRAME_BUFFERS; i++) {
    const raw = KERNEL_RESERVED_BYTES + WINDOW_BYTES + 2 * i * bufferBytes + HEAD_ROOM_BYTES;
    const byteLength = bufferBytes - HEAD_ROOM_BYTES;
    buffers.push({ raw: address(raw), encoded: address(raw + bufferBytes), byteLength });
  }
  const byteLength = Math.min(Math.ceil(total / MEMORY_STEP_BYTES) * MEMORY_STEP_BYTES, MEMORY_BYTES_MAX);
  return {
    kernels: createKernels(byteLength),
    window: address(KERNEL_RESERVED_BYTES),
    buffers,
    region: address(region),
  };
}
