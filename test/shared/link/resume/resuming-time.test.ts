/** Tests the times of a stream that outlives its connections: patience, the pauses between dials, and last messages. */
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { ResumingDestination } from "../../../../shared/link/resume/resuming-destination.ts";
import { ResumingSource } from "../../../../shared/link/resume/resuming-source.ts";
import type { DestinationMessage, SourceMessage } from "../../../../shared/protocol/stream-messages.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { type MemoryTransfer, memoryTransfer } from "../../../support/memory-link.ts";

const LONG_MS = 600_000;
const DAY_MS = 86_400_000;
const LOADED: DestinationMessage = { kind: "loaded", lastSequence: 0, lastByteAtUs: 1, loadedAtUs: 2 };
const FAILURE: DestinationMessage = { kind: "failure", code: "x", message: "y", refusedToken: new Uint8Array() };

/** How the source's host answers a dial: it lets the connection in, refuses it, or says nothing. */
type Answer = "welcome" | "unreachable" | "silence";

interface Ends {
  readonly clock: FakeClock;
  readonly source: ResumingSource;
  readonly destination: ResumingDestination;
  /** When the destination has dialled, milliseconds of the clock. */
  readonly dialledMs: number[];
  readonly atSource: DestinationMessage[];
  /** Sets how the next dials are answered. */
  answer(how: Answer): void;
  /** Breaks the connection, and lets both ends notice. */
  cut(): Promise<void>;
}

/** Makes both ends of a stream, which are not connected yet. */
function ends({ patienceMs, first = "welcome" }: { patienceMs: number; first?: Answer }): Ends {
  const clock = new FakeClock();
  const source = new ResumingSource({ patienceMs, peer: "destination", clock });
  let how = first;
  let connection: MemoryTransfer | undefined;
  const dialledMs: number[] = [];
  const dial = () => {
    const made = memoryTransfer();
    connection = made;
    dialledMs.push(clock.monotonicMs());
    made.source.receive((message) => {
      if (how === "unreachable") throw new MigrationFault("peer-lost", "no agent listens there");
      if (how === "welcome" && message.kind === "hello") source.attach(message, made.source);
    });
    return made.destination;
  };
  const target = { migrationId: "m-1", token: Uint8Array.of(1), peer: "source" };
  const destination = new ResumingDestination({ ...target, patienceMs, clock, dial });
  const atSource: DestinationMessage[] = [];
  source.receive((message) => atSource.push(message));
  destination.receive(() => undefined);
  return {
    ...{ clock, source, destination, dialledMs, atSource },
    answer: (next) => {
      how = next;
    },
    cut: async () => {
      connection?.cut();
      await clock.advance(0);
    },
  };
}

/** Makes both ends of a stream that is connected. */
async function connected(patienceMs: number): Promise<Ends> {
  const made = ends({ patienceMs });
  await made.clock.advanceUntil(() => made.destination.hasMet, "the first connection");
  return made;
}

t.test("a link that stays down is given up when the patience is over, and not before", async (t) => {
  const { clock, source, destination, answer, cut } = await connected(LONG_MS);
  answer("unreachable");
  await cut();
  await clock.advance(LONG_MS - 1);
  t.equal(source.isOver || destination.isOver, false);
  t.equal(source.downForMs, LONG_MS - 1);
  t.same(source.interruptions, { count: 1, downMs: LONG_MS - 1 });
  await clock.advance(1);
  t.match(await source.closed, { code: "peer-lost", message: /destination was down for too long \(600000 ms\)/ });
  t.match(await destination.closed, { code: "peer-lost", message: /the last try: no agent listens there/ });
  t.equal(clock.pending, 0, "no timer of either end is left");
});

t.test("the patience begins with each cut, and not before the first connection", async (t) => {
  const { clock, source, destination, answer, cut } = ends({ patienceMs: 60_000, first: "unreachable" });
  await clock.advance(10 * 60_000);
  t.equal(source.isOver || destination.isOver, false, "there was no connection yet");
  answer("welcome");
  await clock.advanceUntil(() => destination.hasMet, "the first connection");
  for (let time = 1; time <= 3; time++) {
    answer("unreachable");
    await cut();
    await clock.advance(59_000);
    answer("welcome");
    await clock.advanceUntil(() => !source.isCut && !destination.isCut, "another connection", 1000);
    t.equal(source.interruptions.count, time);
  }
  t.ok(source.interruptions.downMs >= 3 * 59_000 && source.interruptions.downMs <= 3 * 60_000);
});

t.test("another patience counts for a cut that lasts already", async (t) => {
  const { clock, source, destination, answer, cut } = await connected(60_000);
  answer("unreachable");
  await cut();
  source.setPatience(Number.POSITIVE_INFINITY);
  destination.setPatience(2 * LONG_MS);
  await clock.advance(LONG_MS);
  t.equal(source.isOver || destination.isOver, false);
  destination.setPatience(LONG_MS / 2);
  await clock.advance(0);
  t.match(await destination.closed, { code: "peer-lost" }, "the link has been down for longer than that");
  await clock.advance(30 * DAY_MS);
  t.equal(source.isOver, false, "an infinite patience does not end");
  source.setPatience(0);
  await clock.advance(0);
  t.match(await source.closed, { code: "peer-lost" });
});

t.test("the pause between two dials doubles up to a second, and begins anew after a welcome", async (t) => {
  const { clock, source, destination, dialledMs, answer, cut } = await connected(LONG_MS);
  const pauses = (): number[] => dialledMs.slice(1).map((at, index) => at - (dialledMs[index] ?? 0));
  const began = dialledMs.length;
  answer("unreachable");
  const cutMs = clock.monotonicMs();
  await cut();
  await clock.advance(6000);
  t.equal((dialledMs[began] ?? 0) - cutMs, 50);
  t.same(pauses().slice(began, began + 6), [100, 200, 400, 800, 1000, 1000]);
  answer("welcome");
  await clock.advanceUntil(() => !destination.isCut, "another connection");
  answer("unreachable");
  const again = dialledMs.length;
  const againMs = clock.monotonicMs();
  await cut();
  await clock.advance(50);
  t.equal(dialledMs[again], againMs + 50);
  for (const end of [source, destination]) end.close(new MigrationFault("cancelled", "the test is over"));
  await clock.advance(0);
  t.equal(clock.pending, 0, "the destination dials no more");
});

t.test("a connection that is not welcomed within three seconds is given up, and another one is dialled", async (t) => {
  const { clock, destination, dialledMs, answer } = ends({ patienceMs: LONG_MS, first: "silence" });
  await clock.advance(3049);
  t.same(dialledMs, [0]);
  await clock.advance(1);
  t.same(dialledMs, [0, 3050]);
  answer("welcome");
  await clock.advance(3000 + 100);
  await clock.advanceUntil(() => destination.hasMet, "a welcome", 1000);
  await clock.advance(LONG_MS);
  t.equal(dialledMs.length, 3, "a connection that was welcomed stays");
});

t.test("a destination tries for a minute to deliver its last message", async (t) => {
  const { clock, destination, atSource, dialledMs, answer, cut } = await connected(LONG_MS);
  answer("unreachable");
  await cut();
  destination.send(FAILURE);
  destination.close();
  await clock.advance(59_000);
  t.equal(destination.isOver, false);
  t.ok(dialledMs.length > 50, "it dials again and again");
  await clock.advance(1000);
  t.equal(await destination.closed, undefined, "the end is the destination's own, and no fault");
  t.same(atSource, []);
});

t.test("a last message is delivered over a connection that is made within that minute", async (t) => {
  const { clock, source, destination, atSource, answer, cut } = await connected(LONG_MS);
  answer("unreachable");
  await cut();
  destination.send(LOADED);
  destination.send(FAILURE);
  destination.close();
  await clock.advance(58_000);
  answer("welcome");
  await clock.advanceUntil(() => source.isOver && destination.isOver, "the end of the stream", 2000);
  t.same(
    atSource.map(({ kind }) => kind),
    ["loaded", "failure"],
  );
  t.equal(await source.closed, undefined);
});

t.test("a patience of less than a minute also bounds the last message", async (t) => {
  const { clock, destination, answer, cut } = await connected(5000);
  answer("unreachable");
  await cut();
  destination.send(FAILURE);
  destination.close();
  await clock.advance(5000);
  t.equal(await destination.closed, undefined);
});

t.test("a source whose last message is not taken ends after a minute", async (t) => {
  const { clock, source, destination } = await connected(LONG_MS);
  destination.pause();
  const word: SourceMessage = { kind: "failure", code: "x", message: "y", refusedToken: new Uint8Array() };
  source.send(word);
  source.close();
  await clock.advance(59_999);
  t.equal(source.isOver, false);
  await clock.advance(1);
  t.equal(await source.closed, undefined);
  destination.close(new MigrationFault("cancelled", "the test is over"));
});
