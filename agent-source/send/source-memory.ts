/**
 * One flat memory for a migration, cut into what the hot path needs:
 *
 *     | reserved by the kernels | intake window | frame buffers, raw and encoded | zero page, arena, bases |
 *
 * It is reserved at once and touched as needed, so a small guest costs little, and nothing ever grows.
 */
import { frameBufferBytes } from "../../shared/codec/page-frame.ts";
import { MigrationFault } from "../../shared/fault.ts";
import { FRAME_HEAD_BYTES } from "../../shared/link/wire/frame-wire.ts";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { type Address, address, PAGE_SIZE } from "../../shared/units.ts";
import { PrecopyScheduler, type SchedulerOptions } from "./precopy-scheduler.ts";

/** Holds several reads of QEMU's socket (its buffer is about 208 KiB) and an item cut in two. */
export const WINDOW_BYTES = 1 << 20;
/** As many frames as the credit of post-copy is good for, and what is being compressed on each of two workers. */
export const FRAME_BUFFERS = 8;

/** Free ahead of each frame, so that the link puts its head there and the body is not copied behind it. */
export const HEAD_ROOM_BYTES = FRAME_HEAD_BYTES;

export interface FrameBuffer {
  readonly raw: Address;
  readonly encoded: Address;
  /** Of each of the two, bytes. */
  readonly byteLength: number;
}

export interface SourceMemory {
  readonly kernels: PageKernels;
  readonly window: Address;
  readonly buffers: readonly FrameBuffer[];
  readonly region: Address;
}

/** WebAssembly's 4 GiB less a page. */
const MEMORY_BYTES_MAX = 2 ** 32 - 65536;

/** @throws MigrationFault `configuration` when the budgets do not fit one memory */
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
  return { kernels: createKernels(total), window: address(KERNEL_RESERVED_BYTES), buffers, region: address(region) };
}
