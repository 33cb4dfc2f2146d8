/**
 * Measures how fast the machine is just now, by work that is always the same. Where others use the machine too, figures
 * that processors limit change with this speed from one moment to the next. Figures that links limit do not.
 */
import zstd from "zstd-napi/binding.js";
import { numbers } from "../guest-pages.ts";

const BYTES = 16 << 20;
/** The level of zstd that Ferry chooses where processors are the bottleneck. */
const LEVEL = -8;
const WORD_BYTES = 4;

const context = new zstd.CCtx();
context.setParameter(zstd.CParameter.compressionLevel, LEVEL);
let work: { readonly from: Uint8Array; readonly to: Uint8Array } | undefined;

/** Compresses the same bytes each time, about 30 ms of work. @returns how fast one processor did it, MB/s (1e6) */
export function machineSpeed(): number {
  work ??= { from: pages(), to: Buffer.alloc(zstd.compressBound(BYTES)) };
  const startMs = performance.now();
  context.compress2(work.to, work.from);
  return BYTES / 1e3 / (performance.now() - startMs);
}

/** Makes pages in which half of each word is random, as in a guest that writes numbers. */
function pages(): Uint8Array {
  const next = numbers(1);
  const words = new Uint32Array(BYTES / WORD_BYTES);
  for (let i = 0; i < words.length; i++) words[i] = next() >>> 16;
  return new Uint8Array(words.buffer);
}
