/** Gives every reader of the protocol messages that somebody who means harm has written. */
import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../shared/fault.ts";
import { FILE_MS, forAWhile, spoiled } from "../support/hostile.ts";
import { fullOf, lists, MILD, messageBytes, oneFieldAlone, WILD } from "./hostile-bytes.ts";
import { rpcs } from "./protocol-descriptors.ts";
import { type Reader, readers, readWithin } from "./readers.ts";

t.setTimeout(FILE_MS);

/** Counts what each reader has taken and what it has refused. */
class Outcomes {
  private readonly taken = new Map<string, number>();
  private readonly refused = new Map<string, number>();

  note({ name }: Reader, got: unknown): void {
    const of = got instanceof MigrationFault ? this.refused : this.taken;
    of.set(name, (of.get(name) ?? 0) + 1);
  }

  /** The readers that have taken nothing. Such a reader was tested only up to its first check. */
  never(): readonly string[] {
    return readers.map(({ name }) => name).filter((name) => !this.taken.has(name));
  }
}

t.test("every call of the protocol has readers with bounds for its request and its response", async (t) => {
  const names = rpcs().flatMap(({ service, name }) => [`${service}.${name} request`, `${service}.${name} response`]);
  t.same(
    readers.map(({ name }) => name),
    names,
  );
  t.ok(names.length >= 24);
});

/** Messages of a reader's type. Some have one field of a oneof alone, since of several fields the last one counts. */
const messagesFor = ({ type }: Reader): fc.Arbitrary<Buffer> =>
  fc.oneof(messageBytes(type, MILD), messageBytes(type, WILD), oneFieldAlone(type, MILD), oneFieldAlone(type, WILD));

/** How many mild messages are tried with a reader that has taken none yet. About half of them are good ones. */
const TRIES = 200;

t.test("well-typed messages with hostile values are read within bounds, or refused by name", async (t) => {
  const outcomes = new Outcomes();
  const one = fc
    .constantFrom(...readers)
    .chain((reader) => messagesFor(reader).map((bytes): [Reader, Buffer] => [reader, bytes]));
  forAWhile(one, ([reader, bytes]) => outcomes.note(reader, readWithin(reader, bytes)));
  for (const reader of readers.filter(({ name }) => outcomes.never().includes(name))) {
    const mild = fc.oneof(messageBytes(reader.type, MILD), oneFieldAlone(reader.type, MILD));
    for (const bytes of fc.sample(mild, TRIES)) outcomes.note(reader, readWithin(reader, bytes));
  }
  t.same(outcomes.never(), [], "every reader has taken a message");
});

t.test("messages that were well-typed and are spoiled are read within bounds, or refused by name", async () => {
  const one = fc
    .constantFrom(...readers)
    .chain((reader) =>
      messageBytes(reader.type, MILD).chain((bytes) => fc.tuple(fc.constant(reader), spoiled([bytes]))),
    );
  forAWhile(one, ([reader, bytes]) => readWithin(reader, bytes));
});

t.test("arbitrary bytes are read within bounds, or refused by name", async () => {
  const bytes = fc.uint8Array({ maxLength: 200 }).map((one) => Buffer.from(one));
  forAWhile(fc.tuple(fc.constantFrom(...readers), bytes), ([reader, given]) => readWithin(reader, given));
});

/**
 * The length of nearly the longest message that an agent reads and that is no frame, bytes (REQUEST_BYTES_MAX,
 * CONTROL_BYTES_MAX).
 */
const LONGEST = (256 << 10) - 64;
/** The most CPU time that one message may take, milliseconds. Everything else that the agent does waits for so long. */
const CPU_MS_MAX = 400;

t.test("the longest message of nothing but empty entries takes an agent little time", async (t) => {
  // the answers of an agent to its operators are read by `ferry`, and by no agent
  const agents = readers.filter(({ name }) => !/^MigrationService.* response$/.test(name));
  for (const reader of agents) {
    const found = lists(reader.type).map((place) => ({ place, ms: cpuMs(reader, fullOf(place, LONGEST >> 4)) }));
    const [slowest] = found.sort((a, b) => b.ms - a.ms);
    if (slowest === undefined) continue;
    const ms = cpuMs(reader, fullOf(slowest.place, LONGEST));
    t.ok(ms < CPU_MS_MAX, `${reader.name}: ${ms.toFixed(0)} ms, of ${slowest.place.name}`);
  }
});

/** The CPU time that this process takes to read a message, milliseconds. */
function cpuMs(reader: Reader, bytes: Buffer): number {
  const before = process.cpuUsage();
  readWithin(reader, bytes);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}
