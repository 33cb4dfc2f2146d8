/**
 * Gives the memory of a migration that has ended back to the host, and keeps down the memory of Buffers during
 * migrations. The memory of a migration is a WebAssembly memory of hundreds of megabytes, which belongs to an object of
 * a few bytes. V8 sees no reason to collect such an object, so the memory of the next migration would come on top.
 */
import { setFlagsFromString } from "node:v8";
import { measureMemory, runInNewContext } from "node:vm";
import { sleepUnref, systemClock } from "../clock.ts";

type Collect = (options?: { readonly type: "minor" }) => void;

let collector: Collect | undefined;

/** Runs V8's collector at once, in one piece. */
function collect(...options: Parameters<Collect>): void {
  if (collector === undefined) {
    setFlagsFromString("--expose-gc");
    const found: unknown = runInNewContext("gc");
    collector = typeof found === "function" ? (...given) => found(...given) : () => undefined;
  }
  collector(...options);
}

/**
 * Collects garbage step by step, between other work. The caller drops its last reference to what is to be collected
 * before the call. Resolves when the collection is done.
 *
 * The collection is asked for as a measurement of memory, which V8 makes while it marks in steps. A collection in one
 * piece, such as gc(), forgets every shape of object that has no object left, together with what V8 has learned about
 * the shape and the code that was compiled for it: such a collection asks whether the constructor of the shape is
 * reachable before it has marked the constructor (V8's RetainMaps, docs/design/memory-and-v8.md#why-in-steps). The next
 * migration would then compile some 50 functions again, and would run slowly until that is done.
 */
export async function returnMemory(): Promise<void> {
  try {
    // a marking that is under way already ends with the first measurement, and keeps what was reachable when it began
    for (let times = 0; times < 2; times++) await measureMemory({ mode: "summary", execution: "eager" });
  } catch {
    collect(); // this Node cannot measure memory, or is measuring already
  }
}

/**
 * How many bytes of messages pass between two collections of V8's young generation. A collection frees the Buffers of
 * these messages that are dead by then, and takes about 1 ms (docs/design/memory-and-v8.md#during-a-migration).
 */
const YOUNG_BYTES = 8 << 20;

/**
 * Lets the heap, together with the memory of Buffers that have outlived a collection, grow to five times its size
 * before V8 marks all of it. By default V8 marks all of it for every 8 MB of such Buffers, which takes a tenth to a
 * third of an agent's processor time (docs/design/memory-and-v8.md#during-a-migration).
 */
const RARE_MARKING = "--heap-growing-percent=400";

/**
 * Keeps down the memory of the Buffers of gRPC and http2, through which each frame goes, and which V8 lets gather to 30
 * to 40 MB. Since the young Buffers are collected here, the whole heap is marked rarely.
 * @returns a function that is to be called with the bytes of each message
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

/**
 * How long after a migration its memory is collected, milliseconds. Calls and streams of the migration refer to it for
 * a moment longer.
 */
const LATER_MS = 1000;
/** Settles when every collection that was asked for is done. */
let underWay: Promise<unknown> = Promise.resolve();

/**
 * Calls returnMemory() after LATER_MS, when the last references to a migration that has ended are gone. It does so even
 * while other migrations are under way: these may go on for hours, and the memory of the migration that has ended would
 * be kept beside theirs.
 *
 * Neither `idle` nor `next` may be a function that was made in a scope with a reference to the migration: the function
 * would keep the migration, and so its memory, alive until after the collection.
 * @param idle returns true when no migration is under way
 * @param next called after the collection, if no migration is under way then
 */
export function returnMemoryLater(idle: () => boolean, next?: () => void): void {
  // collections run one after the other: a measurement that is asked for during another one is no second collection
  const done = Promise.all([underWay, sleepUnref(systemClock, LATER_MS)]).then(returnMemory);
  underWay = done;
  void done.then(() => {
    if (idle()) next?.();
  });
}

/**
 * How long a migration waits at most for memory of earlier migrations, milliseconds. V8 decides when it collects, and a
 * migration must not wait for that without a bound.
 */
const RETURNED_WITHIN_MS = 10_000;

/**
 * Waits until the memory of migrations that have ended is given back, if this program holds more than it needs without
 * a migration. A migration that begins at once would otherwise take its own memory on top of theirs. The wait takes
 * about a second.
 * @param ownBytes what the program takes without a migration
 */
export const memoryReturned = async (ownBytes: number): Promise<void> => {
  if (process.memoryUsage.rss() <= ownBytes) return;
  await Promise.race([underWay, sleepUnref(systemClock, RETURNED_WITHIN_MS)]);
};
