/**
 * The memory of a real guest: the pages of the test guest that are not zero, once it has run for a moment. They are
 * dumped once and kept in .cache, so that all runs and all checkouts move the same bytes.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../../shared/runtime/package-root.ts";
import { PAGE_SIZE } from "../../../shared/units.ts";
import { guestDefinition } from "../../support/guest.ts";
import { Rig } from "../../support/rig.ts";

const NAME = "dumped";
const MEMORY_MIB = 256;
/** The demo's guest: 128 MiB that compress like the memory of processes, beside a kernel and its file system. */
const WORKLOAD = { regionMiB: 128, rate: 200e6 };
const BEATS = 20;
const BOOTS = { timeoutMs: 120_000 };

/** Returns whole pages, one after the other, none of them zero. */
export async function guestDump(): Promise<Buffer> {
  const path = join(packageRoot(), ".cache", "bench", "guest-pages.bin");
  if (!existsSync(path)) await dumpTo(path);
  return readFileSync(path);
}

async function dumpTo(path: string): Promise<void> {
  mkdirSync(join(path, ".."), { recursive: true });
  const rig = await Rig.open({ network: "loopback" });
  try {
    const definition = guestDefinition({ name: NAME, memoryMiB: MEMORY_MIB, workload: WORKLOAD });
    rig.writeDefinition(definition);
    const guest = await rig.startGuest(rig.a, definition);
    await guest.serial.waitForBeats(BEATS, BOOTS);
    const monitor = await rig.observe(rig.a, NAME);
    await monitor.execute("stop");
    const raw = join(rig.folder, "memory");
    await monitor.execute("pmemsave", { val: 0, size: MEMORY_MIB << 20, filename: raw }, BOOTS);
    writeFileSync(`${path}.new`, withoutZeros(readFileSync(raw)));
    renameSync(`${path}.new`, path);
  } finally {
    rmSync(`${path}.new`, { force: true });
    await rig.close();
  }
}

function withoutZeros(memory: Buffer): Buffer {
  const zero = Buffer.alloc(PAGE_SIZE);
  const pages: Buffer[] = [];
  for (let at = 0; at < memory.length; at += PAGE_SIZE) {
    const page = memory.subarray(at, at + PAGE_SIZE);
    if (!page.equals(zero)) pages.push(page);
  }
  return Buffer.concat(pages);
}
