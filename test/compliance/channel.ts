/**
 * Tests what both ends of every Channel have to do (shared/link/link.ts). The same suite runs against each transport.
 */
import type { Test } from "tap";
import { MigrationFault } from "../../shared/fault.ts";
import type { Channel, DestinationChannel, SourceChannel } from "../../shared/link/link.ts";
import type { DestinationMessage, Frame, SourceMessage } from "../../shared/protocol/stream-messages.ts";

/** The two ends of one stream, after the hello. */
export interface ChannelPair {
  readonly source: SourceChannel;
  readonly destination: DestinationChannel;
  /** Breaks the network between the two ends. */
  cut(): void;
}

export type OpenPair = (t: { teardown(done: () => unknown): unknown }) => Promise<ChannelPair>;

const BODY_BYTES = 64 << 10;
/** How many frames are sent at most. No transport holds back as many for a receiver that does not read. */
const HELD_BACK_MAX = 200;
/**
 * After this time without room, milliseconds, no more is expected. A slow machine makes the test weaker, never fail.
 */
const QUIET_MS = 200;

const ping = (nonce: number): SourceMessage => ({ kind: "clockPing", nonce });
const ack = (sequence: number): DestinationMessage => ({ kind: "ack", sequence, appliedBytes: sequence * 2 });

function frame(sequence: number, body: Uint8Array): Frame {
  const checksum = new Uint8Array(8).fill(sequence);
  return { kind: "frame", sequence, frameKind: "pages", codec: "none", rawLength: body.length, checksum, body };
}

/** Calls `take` with each message that is delivered. @returns a promise that resolves when `take` first returns true */
function until<In>(channel: Channel<never, In>, take: (message: In) => boolean): Promise<void> {
  return new Promise((resolve) => {
    channel.receive((message) => {
      if (take(message)) resolve();
    });
  });
}

/**
 * Sends frames while the channel takes them, and ends when it has had no room for a while.
 * @returns how many were sent
 */
async function fill(source: SourceChannel, taken: () => void): Promise<number> {
  const body = new Uint8Array(BODY_BYTES);
  for (let sequence = 1; sequence <= HELD_BACK_MAX; sequence++) {
    if (source.send(frame(sequence, body), taken)) continue;
    const quiet = new Promise<string>((resolve) => setTimeout(resolve, QUIET_MS, "quiet"));
    if ((await Promise.race([quiet, source.drained()])) === "quiet") return sequence;
  }
  return HELD_BACK_MAX;
}

function checkDelivery(t: Test, open: OpenPair): void {
  t.test("the messages of both ends arrive as they were sent and in order", async (t) => {
    const { source, destination } = await open(t);
    const blocks = [{ name: "pc.ram", byteLength: 2 ** 40, pageSize: 4096 }];
    const sent: SourceMessage[] = [
      { kind: "layout", blocks, ramSectionId: 2 },
      { kind: "clockPing", nonce: 2 ** 40, received: 2 ** 33 },
      { kind: "verifyRequest", start: 2 ** 32, byteLength: 4096, last: true },
      { kind: "endOfStream", lastSequence: 7 },
    ];
    const got: SourceMessage[] = [];
    const answers: DestinationMessage[] = [];
    const arrived = until(source, (message) => answers.push(message) === sent.length);
    destination.receive((message) => {
      got.push(message);
      destination.send(ack(got.length));
    });
    for (const message of sent) source.send(message);
    await arrived;
    t.same(got, sent);
    t.same(answers, [1, 2, 3, 4].map(ack));
  });

  t.test("a buffer is taken exactly once, and may be reused after it was taken", async (t) => {
    const { source, destination } = await open(t);
    const wrong: number[] = [];
    let expected = 1;
    const arrived = until(destination, (message) => {
      if (message.kind !== "frame") return false;
      const { sequence, body, checksum } = message;
      const whole = body.length === BODY_BYTES && body.every((byte) => byte === sequence % 256);
      if (sequence !== expected || !whole || checksum[0] !== sequence % 256) wrong.push(sequence);
      expected += 1;
      return sequence === 60;
    });
    const free = [new Uint8Array(BODY_BYTES), new Uint8Array(BODY_BYTES)];
    const taken = new Map<number, number>();
    let sequence = 0;
    await new Promise<void>((resolve) => {
      const pump = (): void => {
        for (let body = free.pop(); body !== undefined && sequence < 60; body = free.pop()) {
          const [own, number] = [body.fill(++sequence), sequence];
          source.send(frame(number, own), () => {
            taken.set(number, (taken.get(number) ?? 0) + 1);
            free.push(own);
            if (taken.size === 60) resolve();
            else pump();
          });
        }
      };
      pump();
    });
    await arrived;
    t.same(wrong, []);
    t.ok([...taken.values()].every((times) => times === 1));
  });

  t.test("a channel never calls a handler while that handler runs", async (t) => {
    const { source, destination } = await open(t);
    let inside = 0;
    let deepest = 0;
    destination.receive((message) => {
      deepest = Math.max(deepest, ++inside);
      if (message.kind === "clockPing") destination.send(ack(message.nonce));
      inside -= 1;
    });
    const arrived = until(source, (message) => {
      deepest = Math.max(deepest, ++inside);
      const done = message.kind === "ack" && message.sequence === 50;
      if (message.kind === "ack" && !done) source.send(ping(message.sequence + 1));
      inside -= 1;
      return done;
    });
    source.send(ping(1));
    await arrived;
    t.equal(deepest, 1);
  });
}

function checkPressure(t: Test, open: OpenPair): void {
  t.test("a receiver that does not read holds up the sender, and later reads all frames in order", async (t) => {
    const { source, destination } = await open(t);
    let taken = 0;
    const sent = await fill(source, () => taken++);
    t.ok(sent < HELD_BACK_MAX, `${sent} frames were held back`);
    t.ok(taken < sent, "the frames that wait were not taken");
    const got: number[] = [];
    const arrived = until(destination, (message) => message.kind === "frame" && got.push(message.sequence) === sent);
    await Promise.all([arrived, source.drained()]);
    t.same(
      got,
      Array.from(got, (_, index) => index + 1),
    );
  });

  t.test("nothing is delivered between pause() and resume(), not even what has come in the same turn", async (t) => {
    const { source, destination } = await open(t);
    const got: number[] = [];
    let more: () => void = () => undefined;
    destination.receive((message) => {
      if (message.kind === "clockPing") got.push(message.nonce);
      destination.pause();
      more();
    });
    for (let nonce = 1; nonce <= 4; nonce++) source.send(ping(nonce));
    for (let expected = 1; expected <= 4; expected++) {
      if (got.length < expected) await new Promise<void>((resolve) => (more = resolve));
      for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
      t.equal(got.length, expected);
      destination.resume();
    }
    source.close();
    t.equal(await destination.closed, undefined);
    t.same(got, [1, 2, 3, 4]);
  });
}

function checkEnds(t: Test, open: OpenPair): void {
  for (const ends of ["source", "destination"] as const)
    t.test(`when the ${ends} ends in order, all that it sent arrives and both ends close cleanly`, async (t) => {
      const { source, destination } = await open(t);
      let count = 0;
      destination.receive(() => count++);
      source.receive(() => count++);
      for (let number = 1; number <= 40; number++)
        if (ends === "source") source.send(frame(number, new Uint8Array(BODY_BYTES)));
        else destination.send(ack(number));
      const closing = ends === "source" ? source : destination;
      closing.close();
      closing.close();
      t.equal(await source.closed, undefined);
      t.equal(await destination.closed, undefined);
      t.equal(count, 40);
    });

  t.test("an unexpected end of the destination is a cut for both ends, after all that was sent", async (t) => {
    const { source, destination } = await open(t);
    const got: DestinationMessage[] = [];
    source.expectsEnd = () => got.length > 2;
    source.receive((message) => got.push(message));
    destination.receive(() => undefined);
    for (const sequence of [1, 2]) destination.send(ack(sequence));
    destination.close();
    t.match(await source.closed, { code: "peer-lost" });
    t.match(await destination.closed, { code: "peer-lost" });
    t.same(got, [1, 2].map(ack));
  });

  t.test("the destination sees the fault with which the source tears the stream", async (t) => {
    const { source, destination } = await open(t);
    destination.receive(() => undefined);
    const details = { advice: "Größere Frist", guestNow: "the guest runs at the source" };
    const fault = new MigrationFault("deadline", "Zu spät: 100 % \u{1f6f3}", {
      ...details,
      refusals: [{ code: "free-memory", message: "4 GiB are missing" }],
    });
    source.close(fault);
    t.equal(await source.closed, fault);
    t.match(await destination.closed, {
      code: "deadline",
      message: fault.message,
      ...details,
      refusals: fault.refusals,
    });
  });

  t.test("the source sees that the destination tore the stream", async (t) => {
    const { source, destination } = await open(t);
    source.receive(() => undefined);
    const fault = new MigrationFault("checksum-mismatch", "Frame 3 is damaged");
    destination.close(fault);
    t.equal(await destination.closed, fault);
    const seen = await source.closed;
    t.ok(seen?.code === "peer-lost" || seen?.code === "checksum-mismatch", String(seen?.code));
  });

  t.test("a handler that throws closes the channel with that fault, and nothing more is delivered", async (t) => {
    const { source, destination } = await open(t);
    let calls = 0;
    source.receive(() => {
      calls += 1;
      throw new MigrationFault("peer-invalid", "Frame 9 was never sent");
    });
    destination.receive(() => undefined);
    for (let number = 1; number <= 5; number++) destination.send(ack(number));
    t.match(await source.closed, { code: "peer-invalid" });
    t.match(await destination.closed, { code: "peer-invalid", message: "Frame 9 was never sent" });
    t.equal(calls, 1);
  });
}

function checkLoss(t: Test, open: OpenPair): void {
  t.test("a cut of the network closes both ends with peer-lost", async (t) => {
    const { source, destination, cut } = await open(t);
    source.receive(() => undefined);
    destination.receive(() => undefined);
    cut();
    t.match(await source.closed, { code: "peer-lost" });
    t.match(await destination.closed, { code: "peer-lost" });
  });

  t.test("however the channel ends, every buffer is given back once and no sender waits for room", async (t) => {
    for (const end of ["cut", "destination tears", "destination ends"] as const) {
      const { source, destination, cut } = await open(t);
      const times = new Map<number, number>();
      let number = 0;
      let isTaken: () => void = () => undefined;
      const count = (): (() => void) => {
        const own = ++number;
        return () => {
          times.set(own, (times.get(own) ?? 0) + 1);
          isTaken();
        };
      };
      while (source.send(frame(number + 1, new Uint8Array(BODY_BYTES)), count())) if (number > HELD_BACK_MAX) break;
      const waiting = source.drained();
      source.receive(() => undefined);
      if (end === "cut") cut();
      else destination.close(end === "destination tears" ? new MigrationFault("cancelled", "Enough") : undefined);
      if (end === "destination ends") destination.receive(() => undefined);
      await source.closed;
      await waiting;
      source.send(frame(number + 1, new Uint8Array(1)), count());
      while (times.size < number) await new Promise<void>((resolve) => (isTaken = resolve));
      t.ok(
        [...times.values()].every((taken) => taken === 1),
        end,
      );
      t.equal(source.send(ping(1)), true, "a message that is sent too late is dropped");
      source.close(new MigrationFault("internal", "too late"));
    }
  });
}

/** Runs the suite. @param open opens another pair for each test, and ends the pair with the test */
export function channelCompliance(t: Test, open: OpenPair): void {
  checkDelivery(t, open);
  checkPressure(t, open);
  checkEnds(t, open);
  checkLoss(t, open);
}
