/**
 * Digests of a stopped guest's memory, page by page, for `--verify`: QEMU writes a stretch of guest-physical memory to
 * a file, the file is read and thrown away. Both agents use it, so both see memory the same way.
 */
import { createHash } from "node:crypto";
import { readFile, rm } from "node:fs/promises";
import { MigrationFault } from "../fault.ts";
import { PAGE_SIZE } from "../units.ts";

/** SHA-256, cut: a chance of 2^-128 for a difference to go unseen. */
export const DIGEST_BYTES = 16;
/** One stretch: bounds the file and the memory that a comparison takes. */
export const STRETCH_BYTES = 16 << 20;

/** Makes QEMU write guest-physical [start, start + byteLength) to `path`. */
export type SaveMemory = (start: number, byteLength: number, path: string) => Promise<unknown>;

/** @returns DIGEST_BYTES for each page of the stretch, in order */
export async function digestStretch(
  save: SaveMemory,
  start: number,
  byteLength: number,
  path: string,
): Promise<Uint8Array> {
  if (byteLength % PAGE_SIZE !== 0 || byteLength > STRETCH_BYTES)
    throw new MigrationFault("peer-invalid", `A stretch of ${byteLength} bytes cannot be compared`);
  const content = await readStretch(save, start, byteLength, path);
  const digests = new Uint8Array((byteLength / PAGE_SIZE) * DIGEST_BYTES);
  for (let page = 0; page * PAGE_SIZE < byteLength; page++) {
    const digest = createHash("sha256")
      .update(content.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE))
      .digest();
    digests.set(digest.subarray(0, DIGEST_BYTES), page * DIGEST_BYTES);
  }
  return digests;
}

/**
 * Reads the guest-physical memory [start, start + byteLength) through a file, which is removed afterwards.
 * @throws MigrationFault `qemu-failed` when QEMU saves less
 */
export async function readStretch(
  save: SaveMemory,
  start: number,
  byteLength: number,
  path: string,
): Promise<Uint8Array> {
  try {
    await save(start, byteLength, path);
    const content = await readFile(path);
    if (content.length === byteLength) return content;
    throw new MigrationFault("qemu-failed", `QEMU saved ${content.length} of ${byteLength} bytes to ${path}`);
  } finally {
    await rm(path, { force: true });
  }
}
