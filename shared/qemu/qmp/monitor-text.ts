/**
 * Parses the human monitor's tables for which QMP has no command: RAM blocks, and the flat view of guest memory. The
 * functions are pure: text in, values out. The formats are those of ram_block_format (system/physmem.c) and
 * mtree_print_flatview (system/memory.c) of QEMU 8.1 to 10.x.
 */
import { MigrationFault } from "../../fault.ts";
import { PAGE_SIZE, RAM_BLOCKS_MAX } from "../../units.ts";
import type { RamBlock } from "../stream/ram-blocks.ts";

/** Guest-physical memory that is RAM or ROM; start and length in bytes, both whole pages. */
export interface GuestMemoryRange {
  readonly start: number;
  readonly byteLength: number;
  /** The name of the RAM block that has the memory. */
  readonly block: string;
}

/**
 * Parses the answer to `info ramblock`.
 * @returns the blocks that the migration stream lists, in the order of the stream and with the used length. QEMU lists
 *   the same blocks in its answer and in the stream: pc.ram, PCI/vga.vram, pc.bios, pc.rom, PCI/*.rom, /rom@etc/*. Both
 *   lists leave out a block without a name, which was never registered for migration
 */
export function parseRamBlocks(text: string): RamBlock[] {
  const blocks: RamBlock[] = [];
  for (const line of linesOf(text)) {
    const row = /^ *(\S+) +(\d+) (B|KiB|MiB|GiB) +0x[0-9a-f]+ +0x([0-9a-f]+) +0x[0-9a-f]+/.exec(line);
    if (row === null) continue;
    const [, name = "", count = "", unit = "B", used = ""] = row;
    if (blocks.length === RAM_BLOCKS_MAX)
      throw new MigrationFault("qmp-protocol", `QEMU names more than ${RAM_BLOCKS_MAX} RAM blocks`);
    blocks.push({ name, byteLength: Number.parseInt(used, 16), pageSize: Number(count) * bytesOf(unit) });
  }
  return blocks;
}

/**
 * Parses the answer to `info mtree -f`.
 * @returns the RAM and ROM in the address space "memory", which is what `pmemsave` reads. Parts of the same block that
 *   touch are one range. I/O, flash (romd) and passed-through device memory (ramd) are left out, and so is the memory
 *   of blocks that do not migrate
 */
export function parseGuestMemory(text: string, blocks: readonly RamBlock[]): GuestMemoryRange[] {
  const ranges: GuestMemoryRange[] = [];
  const names = regionsOf(blocks);
  for (const line of flatViewOf("memory", text)) {
    const row =
      /^\s+([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (?:nv-)?(?:ram|rom)\): (.+?)(?: @[0-9a-f]{16})?(?: (?:kvm|xen|hvf|nvmm|whpx))?$/i.exec(
        line,
      );
    if (row === null) continue;
    const [, first = "", last = "", region = ""] = row;
    const block = names.get(region);
    if (block === undefined) continue;
    const start = Math.ceil(Number.parseInt(first, 16) / PAGE_SIZE) * PAGE_SIZE;
    const end = Math.floor((Number.parseInt(last, 16) + 1) / PAGE_SIZE) * PAGE_SIZE;
    const before = ranges.at(-1);
    if (end <= start) continue;
    if (before !== undefined && before.block === block && before.start + before.byteLength === start)
      ranges[ranges.length - 1] = { ...before, byteLength: end - before.start };
    else ranges.push({ start, byteLength: end - start, block });
  }
  return ranges;
}

/**
 * The longest line that is parsed, characters. The time that the regular expressions take grows with the square of a
 * line's length. Names of blocks have at most 255 bytes, so no line that the agents need is longer.
 */
const LINE_CHARACTERS_MAX = 1000;

/** Splits an answer of the human monitor into lines. Lines of more than LINE_CHARACTERS_MAX are left out. */
export const linesOf = (text: string): string[] =>
  text.split(/\r?\n/).filter((line) => line.length <= LINE_CHARACTERS_MAX);

/** Finds the lines of the flat view that an address space has. Several address spaces may share a flat view. */
function flatViewOf(space: string, text: string): string[] {
  for (const view of text.split(/^FlatView #/m)) {
    const lines = linesOf(view);
    if (lines.some((line) => line.startsWith(` AS "${space}",`))) return lines;
  }
  return [];
}

/**
 * Makes a table from regions to blocks. A region has the block's name without the device's path: vga.vram for
 * 0000:00:01.0/vga.vram.
 */
function regionsOf(blocks: readonly RamBlock[]): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const { name } of blocks)
    for (let at = name.indexOf("/"); at !== -1; at = name.indexOf("/", at + 1)) {
      const region = name.slice(at + 1);
      if (!names.has(region)) names.set(region, name);
    }
  for (const { name } of blocks) names.set(name, name);
  return names;
}

function bytesOf(unit: string): number {
  return unit === "GiB" ? 2 ** 30 : unit === "MiB" ? 2 ** 20 : unit === "KiB" ? 2 ** 10 : 1;
}
