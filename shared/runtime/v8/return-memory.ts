/**
 * Gives the memory of a migration that has ended back to the host. It is a WebAssembly memory of hundreds of megabytes behind
 * an object of a few bytes: V8 sees no reason to collect it, and a second migration would come on top of it.
 */
import { setTimeout as delay } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { measureMemory, runInNewContext } from "node:vm";

type Collect = (options?: { readonly type: "minor" }) => void;

let collector: Collect | undefined;

function collect(...options: Parameters<Collect>): void {
  if (collector === undefined) {
    setFlagsFromString("--expose-gc");
    const found: unknown = runInNewContext("gc");
    collector = typeof found === "function" ? (...given) => found(...given) : () => undefined;
  }
  collector(...options);
}

/**
 * Collects garbage, step by step between other work; call when the last reference is gone. Resolves when it is done.
 *
 * By way of a measurement, which V8 makes while it marks in steps. A collection in one piece, as of gc(), forgets every shape of
 * object that has no object left, with what was learned about it and the code that was compiled for it: it asks whether the
 * shape's constructor is reachable before it has marked that (V8's RetainMaps, docs/decisions/0037). The next migration then
 * compiles some 50 functions again, and runs slowly until it has.
 */
export async function returnMemory(): Promise<void> {
  try {
    // marking that was under way ends with the first, and keeps what could be reached when it began
    for (let times = 0; times < 2; times++) await measureMemory({ mode: "summary", execution: "eager" });
  } catch {
    collect(); // a Node without it, or one that measures already
  }
}

/** Of dead Buffers between two collections. A collection of the young takes about 1 ms. */
const YOUNG_BYTES = 8 << 20;

/**
 * How much the heap, with the memory of Buffers that outlived a collection, may grow until V8 marks all of it: to five times what it was.
 * By itself V8 does so for every 8 MB of these, a tenth to a third of an agent's processor time (docs/decisions/0033).
 */
const RARE_MARKING = "--heap-growing-percent=400";

/**
 * Keeps down what the Buffers of gRPC and http2 take, through which each frame goes and which V8 lets gather to 30 to 40 MB; since
 * the young ones are collected here, all others are rarely.
 * @returns to be called with the bytes of each message
 */
export function youngCollector(): (bytes: number) => void {
  setFlagsFromString(RARE_MARKING);
  let since = 0;
  return (bytes) => {
    since += bytes;
    if (since < YOUNG_BYTES) return;
    since = 0;
    collect({ type: "minor" });
  };
}

/** The calls and streams of the migration refer to it for a moment longer. */
const LATER_MS = 1000;
/** What has been asked for and is not done. */
let underWay: Promise<unknown> = Promise.resolve();

/**
 * As returnMemory(), once the last references are gone. Other migrations may be under way then: they may go on for
 * hours, and the memory of one that has ended would be kept beside theirs.
 *
 * What is handed over here must not be made in a scope that has the migration: it would keep that until it is called.
 * @param idle tells whether nothing is under way
 * @param next is done behind it, when nothing is under way then
 */
export function returnMemoryLater(idle: () => boolean, next?: () => void): void {
  // one after the other: a measurement that is asked for during another one is no second collection
  const done = Promise.all([underWay, delay(LATER_MS, undefined, { ref: false })]).then(returnMemory);
  underWay = done;
  void done.then(() => {
    if (idle()) next?.();
  });
}

/** The longest that a migration waits for memory of earlier ones, milliseconds: it is not to depend on V8's leisure. */
const RETURNED_WITHIN_MS = 10_000;

/**
 * Waits until the memory of migrations that have ended is given back, where this program holds more than it needs by
 * itself: one that begins at once would otherwise take its own on top of theirs. It takes about a second.
 * @param ownBytes what the program takes without a migration
 */
export const memoryReturned = async (ownBytes: number): Promise<void> => {
  if (process.memoryUsage.rss() <= ownBytes) return;
  await Promise.race([underWay, delay(RETURNED_WITHIN_MS, undefined, { ref: false })]);
};
