/** Compares the memory of two paused guests page by page, through QEMU's own pmemsave and without Ferry. */
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import { readMemory } from "./guest-memory.ts";

/** How much memory of each guest is saved at a time, bytes. It bounds the room that is needed on the disk. */
const CHUNK_BYTES = 64 << 20;
/** A machine of type q35 has its RAM in one piece up to this size. */
const ONE_PIECE_MIB = 2048;
const ZERO_PAGE = Buffer.alloc(PAGE_SIZE);

export interface Comparison {
  readonly pages: number;
  /** How many pages of the first guest are not zero. */
  readonly nonZeroPages: number;
  /** The guest-physical numbers of the pages that differ. */
  readonly differing: readonly number[];
}

/**
 * Compares two guests. Both must be stopped, and both QEMUs must be allowed to write to the folder.
 * @throws MigrationFault when a QEMU cannot save its memory
 */
export async function compareMemory(
  first: QmpClient,
  second: QmpClient,
  { memoryMiB, folder }: { memoryMiB: number; folder: string },
): Promise<Comparison> {
  if (memoryMiB > ONE_PIECE_MIB) throw new RangeError(`RAM above ${ONE_PIECE_MIB} MiB is in two pieces`);
  const size = memoryMiB << 20;
  const differing: number[] = [];
  let nonZeroPages = 0;
  for (let from = 0; from < size; from += CHUNK_BYTES) {
    const length = Math.min(CHUNK_BYTES, size - from);
    const [one, other] = [
      await readMemory(first, from, length, { folder }),
      await readMemory(second, from, length, { folder }),
    ];
    for (let offset = 0; offset < length; offset += PAGE_SIZE) {
      const end = offset + PAGE_SIZE;
      if (one.compare(ZERO_PAGE, 0, PAGE_SIZE, offset, end) !== 0) nonZeroPages += 1;
      if (one.compare(other, offset, end, offset, end) !== 0) differing.push((from + offset) / PAGE_SIZE);
    }
  }
  return { pages: size / PAGE_SIZE, nonZeroPages, differing };
}
