/** Tests ends that come late, or never, ends that come from agents of the version before, and what is no end at all. */
import t, { type Test } from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { dialSource } from "../../../../shared/link/grpc/grpc-link.ts";
import { serveSource } from "../../../../shared/link/grpc/grpc-server.ts";
import type { DestinationChannel, LinkLimits, SourceChannel } from "../../../../shared/link/link.ts";
import { ResumingDestination } from "../../../../shared/link/resume/resuming-destination.ts";
import { ResumingSource } from "../../../../shared/link/resume/resuming-source.ts";
import type { DestinationMessage, Hello, SourceMessage } from "../../../../shared/protocol/stream-messages.ts";
import { bounded, eventually } from "../../../support/bounded.ts";
import { BreakingRelay } from "../../../support/breaking-relay.ts";
import { LIMITS, portOf, SERVE, sourceService } from "../../../support/link.ts";
import { COMPLETE, FAILURE, RUNNING } from "../../../support/link-fixtures.ts";
import { memoryTransfer } from "../../../support/memory-link.ts";

t.setTimeout(180_000);
const WITHIN = { timeoutMs: 60_000, everyMs: 2 };
const PATIENT = { patienceMs: 60_000 };
/** The limits of a destination that gives its connection up while the source still takes the connection for whole. */
const HASTY: LinkLimits = { ...LIMITS, keepAliveMs: 150 };
const PLACID: LinkLimits = { ...LIMITS, keepAliveMs: 60_000 };

const LOADED: DestinationMessage = { kind: "loaded", lastSequence: 0, lastByteAtUs: 1, loadedAtUs: 2 };
const ping = (nonce: number): SourceMessage => ({ kind: "verifyRequest", start: nonce, byteLength: 4096, last: false });

const hello = (attempt: number): Hello => ({
  kind: "hello",
  migrationId: "m-1",
  token: Uint8Array.of(1),
  attempt,
  received: 0,
  generation: 0,
  restarted: false,
});

interface Served {
  readonly source: ResumingSource;
  readonly heard: DestinationMessage[];
  readonly changes: boolean[];
  readonly port: number;
}

/** Serves a source of this build at a port of the loopback. */
async function served(t: Test, limits: LinkLimits = LIMITS): Promise<Served> {
  const source = new ResumingSource({ ...PATIENT, peer: "destination" });
  source.retain(1 << 20);
  const made = { source, heard: [] as DestinationMessage[], changes: [] as boolean[] };
  source.onChange = (connected) => made.changes.push(connected);
  source.receive((message) => made.heard.push(message));
  const acceptTransfer = (introduced: Hello, channel: SourceChannel): void => source.attach(introduced, channel);
  const listener = await serveSource(sourceService({ acceptTransfer }), { ...SERVE, limits });
  t.teardown(async () => {
    source.close(new MigrationFault("cancelled", "the test is over"));
    await listener.close(0);
  });
  return { ...made, port: portOf(listener) };
}

interface Dialler {
  readonly destination: ResumingDestination;
  readonly heard: SourceMessage[];
}

function dialler(t: Test, dial: () => DestinationChannel): Dialler {
  const destination = new ResumingDestination({
    ...PATIENT,
    peer: "source",
    migrationId: "m-1",
    token: Uint8Array.of(1),
    dial,
    attemptMs: 5000,
  });
  const heard: SourceMessage[] = [];
  destination.receive((message) => heard.push(message));
  t.teardown(() => destination.close(new MigrationFault("cancelled", "the test is over")));
  return { destination, heard };
}

for (const [order, byHand] of [
  ["before the new connection", true],
  ["after the new connection", true],
  ["before the new connection", false],
  ["after the new connection", false],
] as const)
  t.test(
    `a connection that keep-alive ${byHand ? "by hand" : "of grpc-js"} gave up is a cut, ended ${order}`,
    async (t) => {
      const { source, heard, changes, port } = await served(t, PLACID);
      const relay = await BreakingRelay.open(port);
      t.teardown(() => relay.close());
      const { destination, heard: there } = dialler(t, () =>
        dialSource(`127.0.0.1:${relay.port}`, { ...HASTY, byHand }),
      );
      await eventually(() => !source.isCut || undefined, { ...WITHIN, what: "the first connection" });
      source.send(ping(1));
      await eventually(() => there.length === 1 || undefined, { ...WITHIN, what: "the first message" });
      const first = relay.connections[0]!;
      const ended = new Promise<void>((resolve) => first.near.once("close", resolve));
      first.hold();
      destination.send(LOADED);
      source.send(ping(2));
      const gaveUp = eventually(() => destination.isCut || undefined, { ...WITHIN, what: "keep-alive to give up" });
      if (order === "before the new connection") {
        // connections that are made meanwhile get nowhere either
        const release = holdNext(relay);
        await gaveUp;
        t.equal(source.isCut, false, "the source has noticed nothing");
        first.release();
        await eventually(() => source.isCut || undefined, { ...WITHIN, what: "the late end at the source" });
        release();
      } else {
        await gaveUp;
        await eventually(() => heard.length === 1 || undefined, {
          ...WITHIN,
          what: "the message over a new connection",
        });
        first.release();
        await ended;
      }
      await eventually(() => (heard.length === 1 && there.length === 2) || undefined, {
        ...WITHIN,
        what: "both messages",
      });
      t.match(heard, [{ kind: "loaded" }], "the message comes once");
      t.match(there, [{ start: 1 }, { start: 2 }]);
      t.equal(source.isOver || destination.isOver, false, "neither end has ended the stream");
      t.equal(changes.at(-1), true);
      destination.send(RUNNING);
      destination.close();
      t.equal(await bounded(source.closed, WITHIN.timeoutMs, "the end at the source"), undefined);
      t.equal(await bounded(destination.closed, WITHIN.timeoutMs, "the end at the destination"), undefined);
      t.match(heard, [{ kind: "loaded" }, { kind: "running" }]);
    },
  );

/** Holds the connections that are made from now on. @returns lets these connections go, and holds no more */
function holdNext(relay: BreakingRelay): () => void {
  const known = new Set(relay.connections);
  let holding = true;
  const push = relay.connections.push.bind(relay.connections);
  relay.connections.push = (...made) => {
    if (holding) for (const one of made) one.hold();
    return push(...made);
  };
  return () => {
    holding = false;
    for (const one of relay.connections) if (!known.has(one)) one.release();
  };
}

t.test("a destination of the version before, which only closes after its last word, ends the stream", async (t) => {
  for (const last of [RUNNING, COMPLETE, FAILURE]) {
    const { source, heard, changes, port } = await served(t);
    const old = dialSource(`127.0.0.1:${port}`, LIMITS);
    old.receive(() => undefined);
    old.send(hello(1));
    old.send(last);
    old.close();
    t.equal(await bounded(old.closed, WITHIN.timeoutMs, "the end at the destination"), undefined);
    t.equal(await bounded(source.closed, WITHIN.timeoutMs, "the end at the source"), undefined);
    t.same(heard, [last]);
    t.same(changes, [], "there was no cut");
  }
});

t.test(
  "a connection that a destination of the version before closes without a word is a cut for the source alone",
  async (t) => {
    const { source, port } = await served(t);
    const old = dialSource(`127.0.0.1:${port}`, LIMITS);
    old.receive(() => undefined);
    old.send(hello(1));
    old.send(LOADED);
    old.close();
    // that version takes a good end for the end of the stream, and dials again after every other end
    const [ended] = await bounded(once(old), WITHIN.timeoutMs, "the end at the destination");
    t.match(ended, { code: "peer-lost" }, "this version does not take a good end for the end of the stream");
    await eventually(() => source.isCut || undefined, { ...WITHIN, what: "the cut" });
    t.equal(source.isOver, false);
    const again = dialSource(`127.0.0.1:${port}`, LIMITS);
    again.receive(() => undefined);
    again.send({ ...hello(2), received: 0 });
    await eventually(() => !source.isCut || undefined, { ...WITHIN, what: "the next connection" });
    again.close(new MigrationFault("cancelled", "enough"));
  },
);

const once = (channel: DestinationChannel) => Promise.all([channel.closed]);

t.test("a source of the version before, which only closes, is dialled again, and its refusal is the end", async (t) => {
  let source: SourceChannel | undefined;
  let dials = 0;
  const { destination } = dialler(t, () => {
    dials++;
    const made = memoryTransfer();
    made.source.receive((message) => {
      if (source !== undefined) throw new MigrationFault("refused", "No migration waits for this destination");
      source = made.source;
      if (message.kind === "hello") made.source.send({ kind: "welcome", received: 0, generation: 0 });
      made.source.receive(() => undefined);
      made.source.close();
    });
    return made.destination;
  });
  t.match(await bounded(destination.closed, WITHIN.timeoutMs, "the end"), { code: "refused" });
  t.equal(dials, 2);
});

t.test("the fault of a link that was down for too long says how the last try ended", async (t) => {
  const made = memoryTransfer();
  const source = new ResumingSource({ patienceMs: 1, peer: "destination" });
  source.receive(() => undefined);
  made.destination.receive(() => undefined);
  source.attach(hello(1), made.source);
  made.destination.close();
  t.match(await bounded(source.closed, WITHIN.timeoutMs, "the end of patience"), {
    code: "peer-lost",
    message: /down for too long .*the last try: The connection ended, and the peer had not said/,
  });
  t.match(await made.destination.closed, { code: "peer-lost" }, "both ends see a cut");
});
