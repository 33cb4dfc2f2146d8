/**
 * Gives the memory of a migration that has ended back to the host. It is a WebAssembly memory of hundreds of megabytes behind
 * an object of a few bytes: V8 sees no reason to collect it, and a second migration would come on top of it.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Collects garbage once; call when the last reference is gone, never while a migration is under way. */
export function returnMemory(): void {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  if (typeof collect === "function") collect();
}

/** The calls and streams of the migration refer to it for a moment longer. */
const LATER_MS = 1000;

/** As returnMemory(), once the last references are gone; not when `idle` says that something is under way again. */
export function returnMemoryLater(idle: () => boolean): void {
  setTimeout(() => {
    if (idle()) returnMemory();
  }, LATER_MS).unref();
}
