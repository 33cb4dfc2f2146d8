/**
 * Tests streams that a source begins again: both ends count from one again, and what was said before is not repeated.
 */
import fc from "fast-check";
import t, { type Test } from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { ResumingDestination } from "../../../../shared/link/resume/resuming-destination.ts";
import { ResumingSource } from "../../../../shared/link/resume/resuming-source.ts";
import type { DestinationMessage, Frame, Hello, SourceMessage } from "../../../../shared/protocol/stream-messages.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { type MemoryTransfer, memoryTransfer } from "../../../support/memory-link.ts";

/** The clock of all ends. It moves only while a test waits. */
const clock = new FakeClock();
const PATIENT = { patienceMs: 60_000, peer: "peer", clock };

const frame = (sequence: number): Frame => ({
  kind: "frame",
  sequence,
  frameKind: "pages",
  codec: "none",
  rawLength: 1,
  checksum: new Uint8Array(8),
  body: Uint8Array.of(sequence),
});
const ack = (sequence: number): DestinationMessage => ({ kind: "ack", sequence, appliedBytes: sequence });
const loaded = (lastSequence: number): DestinationMessage => ({
  kind: "loaded",
  lastSequence,
  lastByteAtUs: 0,
  loadedAtUs: 0,
});

interface Rig {
  readonly destination: ResumingDestination;
  readonly hellos: Hello[];
  /** How many messages had come, each time that the destination saw a stream begin again. */
  readonly restarts: number[];
  readonly atDestination: SourceMessage[];
  /** The source that a destination finds when it dials; where it is undefined, the destination is turned away. */
  answering: ResumingSource | undefined;
  cut(): void;
}

function rig(t: Test, restarted = false): Rig {
  let connection: MemoryTransfer | undefined;
  const hellos: Hello[] = [];
  const dial = () => {
    const made = memoryTransfer();
    connection = made;
    made.source.receive((message) => {
      if (message.kind !== "hello") throw new MigrationFault("peer-invalid", `${message.kind} came first`);
      hellos.push(message);
      if (one.answering === undefined) throw new MigrationFault("peer-lost", "not let in");
      one.answering.attach(message, made.source);
    });
    return made.destination;
  };
  const destination = new ResumingDestination({
    ...PATIENT,
    migrationId: "m-1",
    token: Uint8Array.of(1),
    dial,
    restarted,
  });
  const one: Rig = {
    destination,
    hellos,
    restarts: [],
    atDestination: [],
    answering: undefined,
    cut: () => connection?.cut(),
  };
  destination.onAnew = () => one.restarts.push(one.atDestination.length);
  destination.receive((message) => one.atDestination.push(message));
  t.teardown(() => destination.close(new MigrationFault("cancelled", "the test is over")));
  return one;
}

/** Makes a source of this generation, which destinations that dial find from now on. @returns it and what it hears */
function sourceOf(t: Test, made: Rig, generation: number): { source: ResumingSource; heard: DestinationMessage[] } {
  const source = new ResumingSource(PATIENT, generation);
  source.retain(1 << 20);
  const heard: DestinationMessage[] = [];
  source.receive((message) => heard.push(message));
  made.answering = source;
  t.teardown(() => source.close(new MigrationFault("cancelled", "the test is over")));
  return { source, heard };
}

const until = (what: string, is: () => boolean): Promise<void> => clock.advanceUntil(is, what);

const connected = (source: ResumingSource): Promise<void> => until("a connection", () => !source.isCut);
const sequences = (messages: readonly SourceMessage[]): number[] =>
  messages.flatMap((message) => (message.kind === "frame" ? [message.sequence] : []));

t.test("an acknowledgement in the new generation is repeated after a cut", async (t) => {
  const made = rig(t);
  const { source, heard } = sourceOf(t, made, 5);
  await connected(source);
  source.send(frame(1));
  await until("a frame", () => made.atDestination.length === 1);
  made.answering = undefined;
  made.cut();
  made.destination.send(ack(1));
  made.answering = source;
  await until("the acknowledgement", () => heard.length > 0);
  t.same(heard, [ack(1)]);
});

t.test("an agent that has started again says so until it is welcomed, and then no more", async (t) => {
  const made = rig(t, true);
  await until("two tries", () => made.hellos.length >= 2);
  const { source } = sourceOf(t, made, 3);
  await connected(source);
  t.ok(made.hellos.every(({ restarted, generation }) => restarted && generation === 0));
  t.equal(made.restarts.length, 1);
  const tries = made.hellos.length;
  made.cut();
  await until("another try", () => made.hellos.length > tries);
  t.match(made.hellos.at(-1), { restarted: false, generation: 3, received: 0 });
});

t.test("an agent that has not started again does not say that it has", async (t) => {
  const made = rig(t);
  const { source } = sourceOf(t, made, 0);
  await connected(source);
  t.match(made.hellos, [{ restarted: false, generation: 0, received: 0 }]);
  t.same(made.restarts, [], "the first stream for which it dials does not count as begun again");
});

t.test(
  "a count of another generation is ignored, and the source sends all; a false count of its own is refused",
  async (t) => {
    const hello = (changes: Partial<Hello>): Hello => ({
      kind: "hello",
      migrationId: "m-1",
      token: Uint8Array.of(1),
      attempt: 1,
      received: 0,
      generation: 0,
      restarted: false,
      ...changes,
    });
    const source = new ResumingSource(PATIENT, 4);
    source.retain(1 << 20);
    source.send(frame(1));
    const { source: near, destination: far } = memoryTransfer();
    const got: SourceMessage[] = [];
    far.receive((message) => got.push(message));
    source.attach(hello({ received: 1000, generation: 3 }), near);
    await until("the frame", () => got.length === 2);
    t.match(got, [{ kind: "welcome", received: 0, generation: 4 }, { kind: "frame" }]);
    t.throws(() => source.attach(hello({ attempt: 2, received: 2, generation: 4 }), memoryTransfer().source), {
      code: "peer-invalid",
    });
  },
);

t.test("in each generation each message comes once and in order, whenever it is cut or begun again", async (t) => {
  const step = fc.constantFrom("send", "send", "send", "cut", "anew", "turn");
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const made = rig(t);
      let generation = 0;
      let { source, heard } = sourceOf(t, made, generation);
      let sequence = 0;
      let begun = 0;
      made.destination.onAnew = () => {
        begun = made.atDestination.length;
      };
      const settled = async (): Promise<void> => {
        await connected(source);
        await until("all frames", () => sequences(made.atDestination.slice(begun)).length === sequence);
      };
      await connected(source);
      for (const what of steps) {
        if (what === "send") source.send(frame(++sequence));
        else if (what === "cut") made.cut();
        else if (what === "turn") await new Promise(setImmediate);
        else {
          made.answering = undefined;
          made.cut();
          source.close(new MigrationFault("peer-lost", "begun anew"));
          ({ source, heard } = sourceOf(t, made, ++generation));
          sequence = 0;
          await connected(source);
        }
        made.destination.send(loaded(generation));
      }
      source.send(frame(++sequence));
      await settled();
      made.destination.send({ kind: "failure", code: "x", message: "the last", refusedToken: new Uint8Array() });
      await until("the last word", () => heard.at(-1)?.kind === "failure");
      const now = sequences(made.atDestination.slice(begun));
      if (now.some((one, index) => one !== index + 1)) throw new Error(`frames ${now}`);
      if (heard.some((one) => one.kind === "loaded" && one.lastSequence !== generation)) throw new Error("of before");
      made.destination.close(new MigrationFault("cancelled", "the run is over"));
    }),
    { numRuns: 25 },
  );
});
