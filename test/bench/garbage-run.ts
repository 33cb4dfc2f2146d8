/**
 * Measures the garbage that the per-page path makes. garbage.test.ts runs it as `node --expose-gc garbage-run.js`, and
 * it prints one JSON object for each kind of guest page. It is a process of its own, so that nothing else allocates
 * meanwhile.
 */
import { constants, PerformanceObserver } from "node:perf_hooks";
import { captureRig } from "./classify-bench.ts";
import { GUEST_KINDS, type GuestKind } from "./guest-pages.ts";

export interface GarbageFound {
  readonly kind: GuestKind;
  readonly pages: number;
  /** By how much the heap grew. */
  readonly heapBytes: number;
  readonly scavenges: number;
  readonly markCompacts: number;
}

const GUEST_PAGES = 4096;
const WARM_PASSES = 30;
const PASSES = 50;

async function collections(work: () => void): Promise<{ scavenges: number; markCompacts: number }> {
  const kinds: unknown[] = [];
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      // @types/node does not know that the entries have a detail
      const detail: unknown = Reflect.get(entry, "detail");
      if (typeof detail === "object" && detail !== null && "kind" in detail) kinds.push(detail.kind);
    }
  });
  observer.observe({ entryTypes: ["gc"] });
  work();
  // the observer gets its entries in later turns of the event loop
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
  observer.disconnect();
  const count = (kind: number): number => kinds.filter((one) => one === kind).length;
  return {
    scavenges: count(constants.NODE_PERFORMANCE_GC_MINOR),
    markCompacts: count(constants.NODE_PERFORMANCE_GC_MAJOR),
  };
}

async function measure(kind: GuestKind): Promise<GarbageFound> {
  const rig = captureRig(kind, GUEST_PAGES);
  for (let i = 0; i < WARM_PASSES; i++) rig.pass();
  if (globalThis.gc === undefined) throw new TypeError("start this with --expose-gc");
  globalThis.gc();
  let heapBytes = 0;
  const found = await collections(() => {
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < PASSES; i++) rig.pass();
    heapBytes = process.memoryUsage().heapUsed - before;
  });
  return { kind, pages: PASSES * GUEST_PAGES, heapBytes, ...found };
}

if (globalThis.gc !== undefined) for (const kind of GUEST_KINDS) console.log(JSON.stringify(await measure(kind)));
