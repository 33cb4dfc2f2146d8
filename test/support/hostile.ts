/**
 * What the tests with hostile bytes have in common: how long they run, how bytes are spoiled, and which faults may come
 * of it.
 */
import fc from "fast-check";
import { type FaultCode, MigrationFault } from "../../shared/fault.ts";

/**
 * How long each such test runs. After a change of a format, run `FERRY_FUZZ_SECONDS=60 npm test property`. The runner
 * ends a file after ten minutes, so for a whole night run
 * `FERRY_FUZZ_SECONDS=3600 node dist/test/property/NAME.test.js`.
 */
const FUZZ_MS = 1000 * Number(process.env.FERRY_FUZZ_SECONDS ?? 2);
/** The time limit of a test file, which has up to six such tests. */
export const FILE_MS = 30_000 + 8 * FUZZ_MS;

/**
 * The most memory that such a test may take while it runs, garbage included, bytes. A real leak takes more within
 * seconds.
 */
const MEMORY_MAX = 400 << 20;
/** The memory is looked at once in this many runs of a property. */
const RUNS_A_LOOK = 256;

/**
 * Runs a property until the time is over. A failure names its seed, and bytes that are as small as they could be made.
 */
export function forAWhile<T>(what: fc.Arbitrary<T>, holds: (value: T) => void): void {
  const bounded = memoryIsBounded();
  fc.assert(
    fc.property(what, (value) => {
      holds(value);
      bounded();
    }),
    options,
  );
}

/** Does the same as forAWhile() with a property that is asynchronous. */
export async function forAWhileAsync<T>(what: fc.Arbitrary<T>, holds: (value: T) => Promise<void>): Promise<void> {
  const bounded = memoryIsBounded();
  await fc.assert(
    fc.asyncProperty(what, async (value) => {
      await holds(value);
      bounded();
    }),
    options,
  );
}

const options = { numRuns: 1e9, interruptAfterTimeLimit: FUZZ_MS, markInterruptAsFailure: false } as const;

function memoryIsBounded(): () => void {
  const before = process.memoryUsage.rss();
  let runs = 0;
  return () => {
    if (runs++ % RUNS_A_LOOK !== 0) return;
    const grown = process.memoryUsage.rss() - before;
    if (grown > MEMORY_MAX) throw new Error(`memory grew by ${grown} bytes`);
  };
}

/**
 * Runs `act`, which may throw only a fault with one of these codes. Anything else that it throws is thrown again.
 * @returns the code, or undefined if nothing was thrown
 */
export function named(codes: readonly FaultCode[], act: () => unknown): FaultCode | undefined {
  try {
    act();
    return undefined;
  } catch (thrown) {
    return codeOf(thrown, codes);
  }
}

/**
 * Takes what was thrown, which has to be a fault with one of these codes.
 * @returns the code of the fault
 * @throws what was thrown, when it is no such fault or hides a mistake of the program
 */
export function codeOf(thrown: unknown, codes: readonly FaultCode[]): FaultCode {
  if (!(thrown instanceof MigrationFault) || !codes.includes(thrown.code)) throw thrown;
  const { cause } = thrown;
  if (cause instanceof MigrationFault) return codeOf(cause, [...codes, cause.code]) && thrown.code;
  // MigrationFault.from() makes a fault of any mistake of the program; such a fault has the message of its cause
  if (cause instanceof Error && cause.message === thrown.message) throw cause;
  // a TypeError of Node, such as the one for text that is not UTF-8, has a code
  if (cause instanceof TypeError && !("code" in cause)) throw cause;
  if (thrown.message.length > 100_000) throw new Error(`a message of ${thrown.message.length} characters`);
  return thrown.code;
}

type Spoil = (bytes: Buffer) => Buffer;

const place = fc.nat(0xffffff);
const spoil: fc.Arbitrary<Spoil> = fc.oneof(
  fc.tuple(place, fc.nat(255)).map(
    ([at, value]): Spoil =>
      (bytes) =>
        over(bytes, at, Buffer.of(value)),
  ),
  fc.tuple(place, fc.nat(7)).map(
    ([at, bit]): Spoil =>
      (bytes) =>
        over(bytes, at, Buffer.of((bytes[at % Math.max(1, bytes.length)] ?? 0) ^ (1 << bit))),
  ),
  // overwrites a field with a large value, as a length that is blown up
  fc.tuple(place, fc.constantFrom(1, 2, 3, 4, 8), fc.constantFrom(0xff, 0x7f, 0x80, 0)).map(
    ([at, length, value]): Spoil =>
      (bytes) =>
        over(bytes, at, Buffer.alloc(length, value)),
  ),
  place.map(
    (at): Spoil =>
      (bytes) =>
        bytes.subarray(0, at % (bytes.length + 1)),
  ),
  fc.tuple(place, fc.uint8Array({ maxLength: 16 })).map(
    ([at, more]): Spoil =>
      (bytes) =>
        insert(bytes, at, more),
  ),
  fc.tuple(place, place, fc.nat(300)).map(
    ([at, from, length]): Spoil =>
      (bytes) => {
        const start = from % (bytes.length + 1);
        return insert(bytes, at, bytes.subarray(start, start + length));
      },
  ),
  fc.tuple(place, fc.nat(40)).map(
    ([at, length]): Spoil =>
      (bytes) => {
        const start = at % (bytes.length + 1);
        return Buffer.concat([bytes.subarray(0, start), bytes.subarray(start + length)]);
      },
  ),
);

/** Makes good bytes and spoils them in one to five places. */
export const spoiled = (good: readonly Uint8Array[]): fc.Arbitrary<Buffer> =>
  fc
    .tuple(fc.constantFrom(...good), fc.array(spoil, { minLength: 1, maxLength: 5 }))
    .map(([bytes, spoils]) => spoils.reduce((made: Buffer, one) => one(made), Buffer.from(bytes)));

function over(bytes: Buffer, at: number, values: Uint8Array): Buffer {
  const made = Buffer.from(bytes);
  if (made.length > 0) made.set(values.subarray(0, made.length - (at % made.length)), at % made.length);
  return made;
}

function insert(bytes: Buffer, at: number, more: Uint8Array): Buffer {
  const start = at % (bytes.length + 1);
  return Buffer.concat([bytes.subarray(0, start), more, bytes.subarray(start)]);
}

/**
 * Makes JSON values with everything that a reader may stumble over: values that are missing, of another type, or deep,
 * and names that every object has.
 */
export const hostileJson = (values: readonly unknown[]): fc.Arbitrary<unknown> => {
  const leaf = fc.oneof(
    fc.constantFrom(...values),
    fc.constantFrom(null, true, 0, -1, 1e308, "", "\u0000", "\ud800", [], {}, "__proto__", [[]], 2 ** 53),
    fc.string(),
    fc.double({ noNaN: true }),
  );
  return fc.oneof({ weight: 4, arbitrary: leaf }, { weight: 1, arbitrary: fc.jsonValue() });
};

/** Makes an object with some of the keys of a good one, and hostile values in some of the keys. */
export const hostileObject = (good: Readonly<Record<string, unknown>>): fc.Arbitrary<Record<string, unknown>> =>
  fc
    .tuple(
      fc.array(fc.tuple(fc.constantFrom(...Object.keys(good), "__proto__", "toString", "x"), hostileJson([good]))),
      fc.array(fc.constantFrom(...Object.keys(good)), { maxLength: 2 }),
    )
    .map(([changes, removed]) => {
      const made = new Map(Object.entries(good));
      for (const [key, value] of changes) made.set(key, value);
      for (const key of removed) made.delete(key);
      return Object.fromEntries(made);
    });

/** Makes `depth` nested brackets. A reader that calls itself for each of them would run out of stack. */
export const deepJson = (depth: number): string => `${"[".repeat(depth)}${"]".repeat(depth)}`;
