/**
 * Makes and checks the image of a guest that writes numbered blocks to its disk (test/support/guest/disk.c). An image
 * may be checked only while no guest writes to it.
 */
import { readFileSync, writeFileSync } from "node:fs";

export const BLOCK_BYTES = 4096;
const BLOCK_WORDS = BLOCK_BYTES / 4;
/** The same STRIDE as in disk.c. */
const STRIDE = 40503;
const MIB = 2 ** 20;
/** Writes since the guest's last heartbeat may have given a block one version more than expected, or two. */
const VERSIONS_AHEAD_MAX = 2;

/** QEMU's arguments for the disk that the guest writes to; `format` and `file` are those of the topmost layer. */
export const blockDisk = (file: string, format = "raw"): readonly string[] => [
  ...["-drive", `file=${file},format=${format},if=none,id=d0`],
  ...["-device", "virtio-blk-pci,drive=d0,id=disk0"],
];

/** Makes a disk to which nothing was ever written. It is all zeros. */
export const makeDiskImage = (file: string, sizeMiB: number): void => writeFileSync(file, Buffer.alloc(sizeMiB * MIB));

/** The block that a write goes to. */
export const blockOfWrite = (number: number, blocks: number): number =>
  ((number % blocks) * (STRIDE % blocks)) % blocks;

/** The version that a block has after all writes before `written`. */
function versionsAfter(written: number, blocks: number): Uint32Array {
  const versions = new Uint32Array(blocks);
  for (let turn = 0; turn < blocks && turn < written; turn++)
    versions[blockOfWrite(turn, blocks)] = Math.floor((written - turn - 1) / blocks) + 1;
  return versions;
}

/**
 * Compares each block of an image with what the guest had written.
 * @param written the guest's last count of writes: all writes before this number must be on the disk, later ones may be
 * @returns each block that is wrong, in words
 */
export function wrongBlocks(file: string, written: number): readonly string[] {
  const image = readFileSync(file);
  const words = new Uint32Array(image.buffer, image.byteOffset, image.byteLength / 4);
  const least = versionsAfter(written, words.length / BLOCK_WORDS);
  const wrong: string[] = [];
  least.forEach((version, block) => {
    const found = words.subarray(block * BLOCK_WORDS, (block + 1) * BLOCK_WORDS);
    const has = found[1]!;
    if (has < version || has > version + VERSIONS_AHEAD_MAX)
      wrong.push(`block ${block} has version ${has}, and the guest had written version ${version}`);
    else if (!found.every((word, at) => word === pattern(block, has, at)))
      wrong.push(`block ${block} is not what version ${has} of it is`);
  });
  return wrong;
}

/** Computes a word of a block, as pattern() in disk.c does. */
function pattern(block: number, version: number, word: number): number {
  if (version === 0) return 0;
  if (word < 2) return word === 0 ? block : version;
  return mix((mix((block * BLOCK_WORDS + word) >>> 0) ^ version) >>> 0);
}

/** The last step of murmur3 (fmix32), as in disk.c. */
function mix(x: number): number {
  const one = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  const other = Math.imul(one ^ (one >>> 13), 0xc2b2ae35);
  return (other ^ (other >>> 16)) >>> 0;
}
