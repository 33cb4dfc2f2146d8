/**
 * Makes and reads the text of one file of the journal (journal.ts says where the file lies). The text has the record,
 * and a checksum that tells a whole file from a torn or foreign one.
 */
import { createHash } from "node:crypto";

/** The format that is written, and the only one that is read. */
const FORMAT = 1;

const checksum = (id: string, record: unknown): string =>
  createHash("sha256")
    .update(JSON.stringify([FORMAT, id, record]))
    .digest("hex");

/** Makes the text of a file: one line of JSON. */
export function encode(id: string, record: unknown): string {
  return `${JSON.stringify({ format: FORMAT, id, record, checksum: checksum(id, record) })}\n`;
}

/** @returns the record, not decoded yet; undefined when the text is not a whole file of this migration */
export function decodeFile(id: string, text: string): unknown {
  try {
    const file: unknown = JSON.parse(text);
    if (typeof file !== "object" || file === null) return undefined;
    if (!("format" in file && "id" in file && "record" in file && "checksum" in file)) return undefined;
    if (file.format !== FORMAT || file.id !== id || file.checksum !== checksum(id, file.record)) return undefined;
    return file.record;
  } catch {
    return undefined; // the text is no JSON: it was cut off, or is no file of a journal
  }
}
