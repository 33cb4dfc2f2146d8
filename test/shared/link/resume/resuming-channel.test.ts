/** Tests a transfer stream that outlives its connections, over connections inside this process that are cut at will. */
import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import type { SourceChannel } from "../../../../shared/link/link.ts";
import { ResumingDestination } from "../../../../shared/link/resume/resuming-destination.ts";
import { ResumingSource } from "../../../../shared/link/resume/resuming-source.ts";
import type { DestinationMessage, Frame, Hello, SourceMessage } from "../../../../shared/protocol/stream-messages.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { type MemoryTransfer, memoryTransfer } from "../../../support/memory-link.ts";

const frame = (sequence: number): Frame => ({
  kind: "frame",
  sequence,
  frameKind: "pages",
  codec: "none",
  rawLength: 4,
  checksum: new Uint8Array(8),
  body: Uint8Array.of(sequence, sequence >> 8, 1, 2),
});

/** The sources that have taken the place of a destination's first source. */
const dialInstead = new WeakMap<ResumingDestination, ResumingSource>();

interface Rig {
  readonly source: ResumingSource;
  readonly destination: ResumingDestination;
  readonly clock: FakeClock;
  /** Waits until `is` returns true, for at most a minute of the clock. */
  until(is: () => boolean, what: string): Promise<void>;
  /** The current connection. */
  connection(): MemoryTransfer;
  /** Keeps destinations that dial from being let in, until it is called with false. */
  block(blocked: boolean): void;
  readonly atSource: DestinationMessage[];
  readonly atDestination: SourceMessage[];
}

/** @param onFrame what the destination does with each frame */
function rig(onFrame: (rig: Rig, sequence: number) => void = () => undefined, patienceMs = 5000): Rig {
  const clock = new FakeClock();
  const source = new ResumingSource({ patienceMs, peer: "destination", clock });
  source.retain(1 << 20);
  let connection: MemoryTransfer | undefined;
  let blocked = false;
  const dial = () => {
    const made = memoryTransfer();
    connection = made;
    const near: SourceChannel = made.source;
    near.receive((message) => {
      const instead = dialInstead.get(destination);
      if (message.kind !== "hello" || (blocked && instead === undefined))
        throw new MigrationFault("peer-lost", "not let in");
      (instead ?? source).attach(message, near);
    });
    return made.destination;
  };
  const destination: ResumingDestination = new ResumingDestination({
    patienceMs,
    clock,
    peer: "source",
    migrationId: "m-1",
    token: Uint8Array.of(1),
    dial,
  });
  const made: Rig = {
    source,
    destination,
    clock,
    until: (is, what) => clock.advanceUntil(is, what),
    connection: () => {
      if (connection === undefined) throw new Error("nobody has dialled");
      return connection;
    },
    block: (value) => {
      blocked = value;
    },
    atSource: [],
    atDestination: [],
  };
  source.receive((message) => made.atSource.push(message));
  destination.receive((message) => {
    // the body is a view, which is good only until the handler returns
    made.atDestination.push(message.kind === "frame" ? { ...message, body: Uint8Array.from(message.body) } : message);
    if (message.kind === "frame") onFrame(made, message.sequence);
  });
  return made;
}

const framesOf = (messages: readonly SourceMessage[]): number[] =>
  messages.flatMap((one) => (one.kind === "frame" ? [one.sequence] : []));

t.test("every frame and control message comes once and in order, whenever the connection is cut", async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat({ max: 60 }), { maxLength: 6 }),
      fc.array(fc.nat({ max: 60 }), { maxLength: 4 }),
      async (cutsBySending, cutsByTaking) => {
        const made = rig((one, sequence) => {
          one.destination.send({ kind: "ack", sequence, appliedBytes: 4 * sequence });
          if (cutsByTaking.includes(sequence)) one.connection().cut();
        });
        const { source, destination } = made;
        await made.until(() => !source.isCut, "the first connection");
        source.send({ kind: "layout", blocks: [], ramSectionId: 1 });
        for (let sequence = 1; sequence <= 60; sequence++) {
          const one = frame(sequence);
          // a body belongs to the sender again as soon as it was taken
          source.send(one, () => one.body.fill(0));
          if (cutsBySending.includes(sequence)) made.connection().cut();
          if (sequence % 7 === 0) await new Promise(setImmediate);
        }
        source.send({ kind: "endOfStream", lastSequence: 60 });
        await made.until(() => made.atDestination.at(-1)?.kind === "endOfStream", "the end of the stream");
        t.same(
          framesOf(made.atDestination),
          Array.from({ length: 60 }, (_, index) => index + 1),
        );
        for (const one of made.atDestination)
          if (one.kind === "frame") t.same([...one.body], [one.sequence, 0, 1, 2], "the content is right too");
        t.equal(made.atDestination.filter(({ kind }) => kind === "layout").length, 1);
        destination.send({ kind: "loaded", lastSequence: 60, lastByteAtUs: 1, loadedAtUs: 2 });
        made.connection().cut();
        destination.send({ kind: "failure", code: "x", message: "y", refusedToken: new Uint8Array() });
        await made.until(() => made.atSource.some(({ kind }) => kind === "failure"), "the destination's word");
        t.equal(made.atSource.filter(({ kind }) => kind === "loaded").length, 1);
        destination.close();
        await made.until(() => source.isOver, "the end at the source");
        t.equal(await source.closed, undefined, "an orderly end ends the stream");
      },
    ),
    { numRuns: 15 },
  );
});

t.test("frames that are not acknowledged are kept up to a bound, and the others are forgotten", async (t) => {
  const made = rig((one, sequence) => one.destination.send({ kind: "ack", sequence, appliedBytes: 4 * sequence }));
  made.source.retain(40);
  await made.until(() => !made.source.isCut, "a connection");
  for (let sequence = 1; sequence <= 30; sequence++) {
    made.source.send(frame(sequence));
    await made.until(() => made.atSource.length >= sequence, "the acknowledgement");
  }
  made.block(true);
  made.connection().cut();
  await made.until(() => made.source.isCut, "the cut");
  for (let sequence = 31; sequence <= 40; sequence++)
    t.equal(made.source.send(frame(sequence)), false, "there is no room at this moment");
  t.throws(() => made.source.send(frame(41)), { code: "internal" });
  made.source.close();
});

t.test("a link that stays down is given up after the patience that was set last", async (t) => {
  const made = rig(undefined, 60_000);
  await made.until(() => !made.source.isCut, "a connection");
  const changes: boolean[] = [];
  made.source.onChange = (connected) => changes.push(connected);
  made.block(true);
  made.connection().cut();
  await made.until(() => made.source.isCut, "the cut");
  t.same(changes, [false]);
  made.source.setPatience(20);
  await made.clock.advance(20);
  t.match(await made.source.closed, { code: "peer-lost", message: /down for too long/ });
  made.destination.close();
});

t.test("an older connection that comes late is refused, and one that lies ends the stream", async (t) => {
  const hello = (attempt: number, received: number): Hello => ({
    kind: "hello",
    migrationId: "m-1",
    token: Uint8Array.of(1),
    attempt,
    received,
    generation: 0,
    restarted: false,
  });
  const source = new ResumingSource({ patienceMs: 60_000, peer: "destination" });
  source.retain(1 << 20);
  source.attach(hello(2, 0), memoryTransfer().source);
  t.throws(() => source.attach(hello(2, 0), memoryTransfer().source), { code: "refused" });
  t.throws(() => source.attach(hello(1, 0), memoryTransfer().source), { code: "refused" });
  source.send(frame(1));
  t.throws(() => source.attach(hello(3, 2), memoryTransfer().source), { code: "peer-invalid" });
  t.match(await source.closed, { code: "peer-invalid" });
  t.throws(() => source.attach(hello(4, 0), memoryTransfer().source), { code: "refused" });
});

t.test("a message that its receiver finds invalid ends the stream, and the peer can still be told why", async (t) => {
  const made = rig((_, sequence) => {
    if (sequence === 2) throw new MigrationFault("checksum-mismatch", "frame 2 is damaged");
  });
  await made.until(() => !made.source.isCut, "a connection");
  for (const sequence of [1, 2, 3]) made.source.send(frame(sequence));
  t.match(await made.destination.closed, { code: "checksum-mismatch" });
  t.same(framesOf(made.atDestination), [1, 2], "nothing is taken after the invalid frame");
  made.destination.send({ kind: "failure", code: "checksum-mismatch", message: "2", refusedToken: new Uint8Array() });
  made.destination.close();
  t.equal(await made.source.closed, undefined);
  t.match(made.atSource, [{ kind: "failure", code: "checksum-mismatch" }]);
});

t.test("when a source begins the stream again, it counts from one, and so does the destination", async (t) => {
  const { source, destination, clock, until, connection, block, atSource, atDestination } = rig();
  await until(() => !source.isCut, "the first connection");
  source.send(frame(1));
  source.send(frame(2));
  await until(() => framesOf(atDestination).length === 2, "two frames");
  block(true);
  connection().cut();
  // the request is sent without a connection, and the next source would not know what it is about
  destination.send({ kind: "pageRequest", firstPage: 7, pageCount: 1 });
  let restarts = 0;
  destination.onAnew = () => {
    restarts++;
  };
  source.close(new MigrationFault("peer-lost", "the agent has ended"));
  const second = new ResumingSource({ patienceMs: 5000, peer: "destination", clock }, 77);
  second.retain(1 << 20);
  const heard: DestinationMessage[] = [];
  second.receive((message) => heard.push(message));
  dialInstead.set(destination, second);
  second.send(frame(1));
  await until(() => framesOf(atDestination).length === 3, "frame 1 again");
  t.same(framesOf(atDestination), [1, 2, 1]);
  t.equal(restarts, 1);
  destination.send({ kind: "pageRequest", firstPage: 8, pageCount: 1 });
  await until(() => heard.length > 0, "the request that was sent since");
  t.match(heard, [{ kind: "pageRequest", firstPage: 8 }]);
  t.same(atSource, []);
  second.close();
});

const request = (firstPage: number): DestinationMessage => ({ kind: "pageRequest", firstPage, pageCount: 1 });
const requested = (messages: readonly DestinationMessage[]): number[] =>
  messages.flatMap((one) => (one.kind === "pageRequest" ? [one.firstPage] : []));

t.test("each ping says which messages have come, and those are kept no longer", async (t) => {
  const { source, destination, until, atSource, connection, block } = rig();
  await until(() => !source.isCut, "a connection");
  for (let page = 0; page < 1000; page++) destination.send(request(page));
  await until(() => atSource.length === 1000, "the requests");
  t.equal(destination.keptMessages, 1000);
  source.send({ kind: "clockPing", nonce: 1 });
  await until(() => destination.keptMessages === 0, "the ping");
  block(true);
  connection().cut();
  destination.send(request(1000));
  t.equal(destination.keptMessages, 1);
  block(false);
  await until(() => atSource.length === 1001, "the request after the cut");
  t.same(requested(atSource), [...Array(1001).keys()], "each request came once");
  destination.close(new MigrationFault("cancelled", "the test is over"));
});

t.test("a source that does not say what has come must say so to a destination that dials again", async (t) => {
  const { source, destination, until, atSource } = rig();
  await until(() => !source.isCut, "a connection");
  const count = 120_000;
  let most = 0;
  for (let page = 0; page < count; page++) {
    destination.send(request(page));
    if (page % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
    most = Math.max(most, destination.keptMessages);
    if (destination.isCut) await until(() => !destination.isCut, "another connection");
  }
  await until(() => atSource.length === count, "the requests");
  t.equal(
    requested(atSource).every((page, index) => page === index),
    true,
    "each request came once, in order",
  );
  // 50 000 requests are kept, and those of one turn of the event loop
  t.ok(most <= 51_000, `${most} were kept at most`);
  destination.close(new MigrationFault("cancelled", "the test is over"));
});
