/**
 * Gives the journals of each host a small file system of their own, which can be filled and frozen. Both faults are as
 * they are in the world: writes fail with ENOSPC, or wait in the kernel (fsfreeze) and keep their threads.
 */
import { execFileSync } from "node:child_process";
import { closeSync, fsyncSync, openSync, rmSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { run } from "../support/process.ts";
import type { RigHost } from "../support/rig.ts";
import { atTeardown } from "../support/teardown.ts";

const SIZE_BYTES = 8 << 20;
/** How many files fit. A record and its successor are a file each, and an agent keeps 200 records. */
const FILES = "1024";
const FILLER = "filler";
/** Sizes of the writes that fill a disk to its last block, the largest first. */
const SYNCED_BYTES = [1 << 20, 64 << 10, 1 << 10] as const;

export const canHaveDisks = (): boolean => process.getuid?.() === 0;

export class HostDisk {
  readonly #directory: string;
  readonly #forget: () => void;
  #frozen = false;

  /**
   * Makes the disk of a host and mounts it at the host's state directory.
   * @param folder where the file that has the file system is made
   */
  static async mount(host: RigHost, folder: string): Promise<HostDisk> {
    const image = join(folder, `${host.name}.disk`);
    writeFileSync(image, "");
    truncateSync(image, SIZE_BYTES);
    const options = ["-q", "-O", "^has_journal", "-I", "256", "-b", "1024", "-N", FILES, "-m", "0"];
    await run(["mkfs.ext4", ...options, image]);
    await run(["mount", "-o", "loop", image, host.stateDirectory]);
    return new HostDisk(host.stateDirectory);
  }

  private constructor(directory: string) {
    this.#directory = directory;
    this.#forget = atTeardown(() => this.#unmount());
  }

  /** Makes every write wait until thaw(). The kernel first syncs what is written already. */
  async freeze(): Promise<void> {
    this.#frozen = true;
    await run(["fsfreeze", "--freeze", this.#directory]);
  }

  async thaw(): Promise<void> {
    if (!this.#frozen) return;
    this.#frozen = false;
    await run(["fsfreeze", "--unfreeze", this.#directory]);
  }

  /** Fills the disk to its last block. */
  fill(): void {
    const file = openSync(join(this.#directory, FILLER), "w");
    try {
      for (const bytes of SYNCED_BYTES) writeAll(file, bytes);
    } finally {
      closeSync(file);
    }
  }

  empty(): void {
    rmSync(join(this.#directory, FILLER), { force: true });
  }

  /** Takes back what was done to the disk, for the next cell. */
  async mend(): Promise<void> {
    await this.thaw();
    this.empty();
  }

  close(): void {
    this.#forget();
    this.#unmount();
  }

  #unmount(): void {
    if (this.#frozen) execFileSync("fsfreeze", ["--unfreeze", this.#directory]);
    this.#frozen = false;
    // a program that still has a file of the disk open is about to end
    execFileSync("umount", ["--lazy", this.#directory]);
  }
}

/** Writes so many bytes at a time until the disk has no room for as many. */
function writeAll(file: number, bytes: number): void {
  const block = Buffer.alloc(bytes, 1);
  try {
    for (;;) {
      writeSync(file, block);
      fsyncSync(file);
    }
  } catch (thrown) {
    if (!(thrown instanceof Error && "code" in thrown && thrown.code === "ENOSPC")) throw thrown;
  }
}
