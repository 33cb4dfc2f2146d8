/**
 * The files that a guest has for its memory and writes to (`memory-backend-file` with share=on). Pages that come for
 * the guest at the destination would be written into the memory of the guest at the source, were it the same file.
 */
import { stat } from "node:fs/promises";
import type { Image } from "../protocol/messages.ts";
import { baseNameOf, inodeOf } from "./open-files.ts";
import type { QmpClient } from "./qmp-client.ts";

export async function readMemoryFiles(qmp: QmpClient): Promise<readonly Image[]> {
  const backends = await qmp.execute("query-memdev");
  const files = await Promise.all(
    backends.filter(({ share }) => share === true).map(({ id = "", size = 0 }) => fileOf(qmp, id, size)),
  );
  return files.filter((one) => one !== undefined);
}

/** A directory is where QEMU makes a file of its own, and memory without a name is nobody else's. */
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
