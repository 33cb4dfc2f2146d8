/**
 * Keeps the memory of a session that has ended for the next one. Memory that a process touches for the first time costs
 * a page fault for each 4 KiB. Such a fault costs several times as much on a virtual machine whose host has to find the
 * page as well. A migration touches some hundred MiB of arena and bases
 * (docs/design/memory-and-v8.md#memory-that-stays).
 *
 * Invariants:
 *
 * - A memory belongs to one session at a time. It is given back when nothing refers to it any more: no socket reads
 *   into it, no thread compresses from it, and no frame of it waits to be sent.
 * - Nothing of a guest is left in a kept memory: every byte that a session may have written is zero.
 * - At most one memory is kept, and not for longer than KEEPS_MS.
 */
import { setImmediate } from "node:timers/promises";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { Clock, Timer } from "../../shared/runtime/clock.ts";
import { address, PAGE_SIZE } from "../../shared/units.ts";

/** How long a memory is kept at most, milliseconds. A host that moves no guests has its memory back after this time. */
const KEEPS_MS = 600_000;
/** How many bytes are cleared in one turn of the event loop, which takes about half a millisecond. */
const CLEARS_BYTES = 4 << 20;

interface Kept {
  readonly kernels: PageKernels;
  /** How many bytes of the memory take memory of the host, since they were written to. */
  readonly usedBytes: number;
}

export class KeptMemory {
  private readonly clock: Clock;
  private readonly onForgotten: () => void;
  private kept: Kept | undefined;
  private timer: Timer | undefined;

  /** @param onForgotten called when a memory is not kept any longer, so that it can be given back to the host */
  constructor(clock: Clock, onForgotten: () => void) {
    this.clock = clock;
    this.onForgotten = onForgotten;
  }

  /** How much memory of the host the kept memory takes, bytes. */
  get bytes(): number {
    return this.kept?.usedBytes ?? 0;
  }

  /**
   * Takes the kept memory for a session.
   * @returns undefined when none is kept, or when it is shorter than `byteLength` and therefore of no more use
   */
  take(byteLength: number): PageKernels | undefined {
    const { kept } = this;
    this.forget();
    return kept !== undefined && kept.kernels.memory.length >= byteLength ? kept.kernels : undefined;
  }

  /**
   * Clears the memory of a session that has ended, between other work, and keeps it.
   * @param usedBytes how many bytes of the memory, from its start, the session may have written to. They include the
   *   bytes that are reserved for the kernels, which put() does not clear
   */
  async put(kernels: PageKernels, usedBytes: number): Promise<void> {
    for (let at = KERNEL_RESERVED_BYTES; at < usedBytes; at += CLEARS_BYTES) {
      clear(kernels, at, Math.min(at + CLEARS_BYTES, usedBytes));
      await setImmediate();
    }
    this.forget();
    this.kept = { kernels, usedBytes };
    this.timer = this.clock.after(KEEPS_MS, () => {
      this.forget();
      this.onForgotten();
    });
    this.timer.unref();
  }

  private forget(): void {
    this.clock.cancel(this.timer);
    this.kept = undefined;
  }
}

/**
 * Clears [from, to) of the memory: fills one page with zeros, and copies the part that is clear until all of it is. In
 * shared memory Uint8Array.fill() writes byte by byte, which took a tenth of a source agent's processor time.
 */
function clear(kernels: PageKernels, from: number, to: number): void {
  let cleared = Math.min(PAGE_SIZE, to - from);
  kernels.memory.fill(0, from, from + cleared);
  while (from + cleared < to) {
    const length = Math.min(cleared, to - from - cleared);
    kernels.copy(address(from + cleared), address(from), length);
    cleared += length;
  }
}
