/**
 * Makes digests of a stopped guest's memory, page by page, for `--verify`. QEMU writes a stretch of guest-physical
 * memory to a file; the file is read and removed. Both agents use this code, so both look at memory in the same way.
 */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { setImmediate } from "node:timers/promises";
import { MigrationFault } from "../../fault.ts";
import { PAGE_SIZE } from "../../units.ts";
import { removeLeft } from "../files/remove-left.ts";
import { admitToFile } from "./meeting-place.ts";

/** Bytes of a digest: SHA-256, cut. A difference goes unseen with a chance of 2^-128. */
export const DIGEST_BYTES = 16;
/** The most bytes of a stretch. This bounds the file and the memory that a comparison takes. */
export const STRETCH_BYTES = 16 << 20;

/**
 * After how many pages other work has its turn. The pages of other guests come in the same thread; 256 pages take about
 * 4 ms.
 */
const PAGES_A_TURN = 256;

/** Makes QEMU write the guest-physical memory [start, start + byteLength) to the file `path`. */
export type SaveMemory = (start: number, byteLength: number, path: string) => Promise<unknown>;

/**
 * Makes the digests of a stretch.
 * @param path the file that QEMU writes to
 * @returns DIGEST_BYTES for each page, in order
 * @throws MigrationFault `peer-invalid` for a stretch that is too long or not of whole pages; and what readStretch()
 *   throws
 */
export async function digestStretch(
  save: SaveMemory,
  start: number,
  byteLength: number,
  path: string,
): Promise<Uint8Array> {
  if (byteLength % PAGE_SIZE !== 0 || byteLength > STRETCH_BYTES)
    throw new MigrationFault("peer-invalid", `A stretch of ${byteLength} bytes cannot be compared`);
  return digestPages(await readStretch(save, start, byteLength, path));
}

/**
 * Makes the digests of pages.
 * @param content whole pages
 * @returns DIGEST_BYTES for each page, in order
 */
export async function digestPages(content: Uint8Array): Promise<Uint8Array> {
  const digests = new Uint8Array((content.byteLength / PAGE_SIZE) * DIGEST_BYTES);
  for (let page = 0; page * PAGE_SIZE < content.byteLength; page++) {
    if (page % PAGES_A_TURN === PAGES_A_TURN - 1) await setImmediate();
    const digest = createHash("sha256")
      .update(content.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE))
      .digest();
    digests.set(digest.subarray(0, DIGEST_BYTES), page * DIGEST_BYTES);
  }
  return digests;
}

/**
 * Reads the guest-physical memory [start, start + byteLength) through a file, which is removed afterwards. The file is
 * made before QEMU writes to it, and QEMU keeps its mode, so only this agent's user may read it.
 * @throws MigrationFault `qemu-failed` when QEMU saves less or more; and the errors of the file system
 */
export async function readStretch(
  save: SaveMemory,
  start: number,
  byteLength: number,
  path: string,
): Promise<Uint8Array> {
  await removeLeft(path);
  const { O_RDWR, O_CREAT, O_EXCL } = constants;
  const file = await open(path, O_RDWR | O_CREAT | O_EXCL, 0o600);
  try {
    await admitToFile(file, path);
    await save(start, byteLength, path);
    // the path is not opened again, since another file may be there by now: only the file made above is read
    const { size } = await file.stat();
    if (size !== byteLength)
      throw new MigrationFault("qemu-failed", `QEMU saved ${size} of ${byteLength} bytes to ${path}`);
    const content = Buffer.alloc(byteLength);
    for (let at = 0; at < byteLength; ) {
      const { bytesRead } = await file.read(content, at, byteLength - at, at);
      if (bytesRead === 0) throw new MigrationFault("qemu-failed", `${path} was cut to ${at} bytes while it was read`);
      at += bytesRead;
    }
    return content;
  } finally {
    await file.close();
    await removeLeft(path);
  }
}
