/**
 * Finds the files that hold a guest's memory and that the guest writes to (`memory-backend-file` with share=on). If
 * both hosts had the same file, the pages that the destination receives would be written into the memory of the guest
 * that runs at the source.
 */
import { stat } from "node:fs/promises";
import type { Image } from "../../protocol/messages.ts";
import type { QmpClient } from "../qmp/qmp-client.ts";
import { baseNameOf, inodeOf } from "./open-files.ts";

/** Finds the shared files of a guest's memory. `format` of each is the id of its memory backend. */
export async function readMemoryFiles(qmp: QmpClient): Promise<readonly Image[]> {
  const backends = await qmp.execute("query-memdev");
  const files = await Promise.all(
    backends.filter(({ share }) => share === true).map(({ id = "", size = 0 }) => fileOf(qmp, id, size)),
  );
  return files.filter((one) => one !== undefined);
}

/**
 * Finds the file of a memory backend.
 * @returns undefined for a directory, in which QEMU makes a file of its own, and for memory without a file
 */
async function fileOf(qmp: QmpClient, id: string, byteLength: number): Promise<Image | undefined> {
  const given = await qmp.execute("qom-get", { path: `/objects/${id}`, property: "mem-path" }).catch(() => undefined);
  if (typeof given !== "string" || given === "") return undefined;
  const isFile = await stat(given).then(
    (found) => found.isFile(),
    () => false,
  );
  if (!isFile) return undefined;
  const [inode, baseName] = await Promise.all([inodeOf(given), baseNameOf(given)]);
  return { format: id, file: given, byteLength, writable: true, inode, baseName };
}
