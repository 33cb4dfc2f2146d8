/** Writes the journal's files (journal.ts) to the disk, so that they survive a power cut. */
import { open } from "node:fs/promises";

/** What the journal asks of the disk; tests hand over a disk of their own. */
export interface JournalDisk {
  /** Resolves when the text is on the disk. */
  writeWhole(file: string, text: string): Promise<void>;
  /** Resolves when the names in the directory are on the disk. */
  syncDirectory(directory: string): Promise<void>;
}

async function writeWhole(file: string, text: string): Promise<void> {
  const handle = await open(file, "w", 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export const THIS_DISK: JournalDisk = { writeWhole, syncDirectory };
