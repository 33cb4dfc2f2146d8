/**
 * Measures what no migration can be better than: the guest's different pages that are not zero, compressed once, go
 * over the link once.
 */
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync, rmSync } from "node:fs";
import { join } from "node:path";
import zstd from "zstd-napi/binding.js";
import type { Rig, RigHost } from "../../support/rig.ts";

export interface PhysicalLimit {
  /** How many different pages there are, without the zero page. */
  readonly uniquePages: number;
  readonly compressedBytes: number;
}

const PAGE_BYTES = 4096;
const BLOCK_BYTES = 8 << 20;
const LEVEL = 3;
/** A PC has its memory from address 0 on. A larger PC has a hole in it from here on. */
const BELOW_HOLE_BYTES = 2 ** 31;
const MIB = 2 ** 20;
const SAVE_MS = 60_000;

/**
 * Measures the guest as it is now; the guest stands still meanwhile. The first 2 GiB of a larger guest stand for the
 * rest.
 */
export async function physicalLimit(rig: Rig, host: RigHost, name: string, memoryMiB: number): Promise<PhysicalLimit> {
  const file = join(rig.folder, "memory");
  const size = Math.min(memoryMiB * MIB, BELOW_HOLE_BYTES);
  const monitor = await rig.observe(host, name);
  try {
    await monitor.execute("pmemsave", { val: 0, size, filename: file }, { timeoutMs: SAVE_MS });
    const { uniquePages, compressedBytes } = measure(file);
    const times = (memoryMiB * MIB) / size;
    return { uniquePages: Math.round(uniquePages * times), compressedBytes: Math.round(compressedBytes * times) };
  } finally {
    monitor.close();
    rmSync(file, { force: true });
  }
}

function measure(file: string): PhysicalLimit {
  const handle = openSync(file, "r");
  const block = Buffer.alloc(BLOCK_BYTES);
  const kept = Buffer.alloc(BLOCK_BYTES);
  const compressed = Buffer.alloc(zstd.compressBound(BLOCK_BYTES));
  const context = new zstd.CCtx();
  context.setParameter(zstd.CParameter.compressionLevel, LEVEL);
  const zero = Buffer.alloc(PAGE_BYTES);
  const seen = new Set<string>();
  let [keptBytes, compressedBytes] = [0, 0];
  const flush = (): void => {
    compressedBytes += context.compress2(compressed, kept.subarray(0, keptBytes));
    keptBytes = 0;
  };
  try {
    for (;;) {
      const bytes = readSync(handle, block);
      if (bytes === 0) break;
      for (let at = 0; at + PAGE_BYTES <= bytes; at += PAGE_BYTES) {
        const page = block.subarray(at, at + PAGE_BYTES);
        if (page.equals(zero)) continue;
        const hash = createHash("md5").update(page).digest("base64");
        if (seen.has(hash)) continue;
        seen.add(hash);
        page.copy(kept, keptBytes);
        keptBytes += PAGE_BYTES;
        if (keptBytes === BLOCK_BYTES) flush();
      }
    }
    if (keptBytes > 0) flush();
  } finally {
    closeSync(handle);
  }
  return { uniquePages: seen.size, compressedBytes };
}
