/**
 * Tests that only a message of the protocol ends a stream, however a connection ends: over real servers and clients,
 * with a relay between them that ends connections in every way, at every message, in both directions. The destination
 * dials by hand and by grpc-js.
 */
import { randomBytes } from "node:crypto";
import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { dialSource } from "../../../../shared/link/grpc/grpc-link.ts";
import { serveSource } from "../../../../shared/link/grpc/grpc-server.ts";
import { ResumingDestination } from "../../../../shared/link/resume/resuming-destination.ts";
import { ResumingSource } from "../../../../shared/link/resume/resuming-source.ts";
import type {
  DestinationMessage,
  Frame,
  FrameKind,
  SourceMessage,
} from "../../../../shared/protocol/stream-messages.ts";
import { bounded } from "../../../support/bounded.ts";
import { BreakingRelay, type End, type Strike } from "../../../support/breaking-relay.ts";
import { WAYS } from "../../../support/connection-ends.ts";
import { LIMITS, portOf, SERVE, sourceService } from "../../../support/link.ts";
import { COMPLETE, FAILURE, RUNNING } from "../../../support/link-fixtures.ts";

t.setTimeout(300_000);
const PATIENT = { patienceMs: 60_000 };
const ENDS_WITHIN_MS = 60_000;
const AT_ONCE = 32;

/** What happens in a migration: the messages that the two ends say of their own accord, in their order. */
interface Script {
  readonly name: string;
  /** What the source says first. */
  readonly begins: readonly SourceMessage[];
  /** What an end says when it has heard a message of the other end; its last word is followed by close(). */
  readonly atSource: (heard: DestinationMessage) => readonly (SourceMessage | "close")[];
  readonly atDestination: (heard: SourceMessage) => readonly (DestinationMessage | "close")[];
  /** The kinds of all messages that each end hears, except for those that matter only at their moment. */
  readonly source: readonly string[];
  readonly destination: readonly string[];
}

const frame = (sequence: number, frameKind: FrameKind = "pages"): Frame => ({
  kind: "frame",
  sequence,
  frameKind,
  codec: "none",
  rawLength: 4,
  checksum: new Uint8Array(8),
  body: Uint8Array.of(sequence, 1, 2, 3),
});
const LAYOUT: SourceMessage = { kind: "layout", blocks: [], ramSectionId: 1 };
const GRANT: SourceMessage = { kind: "grant", token: Uint8Array.of(1), epoch: 1, paused: false };
const LOADED: DestinationMessage = { kind: "loaded", lastSequence: 2, lastByteAtUs: 1, loadedAtUs: 2 };

const PRECOPY: Script = {
  name: "precopy",
  begins: [LAYOUT, frame(1), frame(2), { kind: "endOfStream", lastSequence: 2 }],
  atSource: ({ kind }) => (kind === "loaded" ? [GRANT] : kind === "running" ? ["close"] : []),
  atDestination: ({ kind }) => (kind === "endOfStream" ? [LOADED] : kind === "grant" ? [RUNNING, "close"] : []),
  source: ["loaded", "running"],
  destination: ["layout", "frame 1", "frame 2", "endOfStream", "grant"],
};
/** The guest runs in the middle of this script. */
const POSTCOPY: Script = {
  name: "post-copy",
  begins: [LAYOUT, frame(1, "package")],
  atSource: ({ kind }) => {
    if (kind === "loaded") return [GRANT];
    if (kind === "pageRequest") return [frame(2)];
    return kind === "complete" ? ["close"] : [];
  },
  atDestination: (heard) => {
    if (heard.kind === "grant") return [RUNNING, { kind: "pageRequest", firstPage: 7, pageCount: 1 }];
    if (heard.kind !== "frame") return [];
    return heard.sequence === 1 ? [LOADED] : [COMPLETE, "close"];
  },
  source: ["loaded", "running", "pageRequest", "complete"],
  destination: ["layout", "frame 1", "grant", "frame 2"],
};
const REFUSED: Script = {
  name: "a destination that gives up",
  begins: [LAYOUT, frame(1)],
  atSource: ({ kind }) => (kind === "failure" ? ["close"] : []),
  atDestination: (heard) => (heard.kind === "frame" ? [FAILURE, "close"] : []),
  source: ["failure"],
  destination: ["layout", "frame 1"],
};

const MOMENTARY: readonly string[] = ["welcome", "hello", "ack", "clockPing", "clockReply"];
const nameOf = (message: SourceMessage | DestinationMessage): string =>
  message.kind === "frame" ? `frame ${message.sequence}` : message.kind;

const sources = new Map<string, ResumingSource>();
const listener = await serveSource(
  sourceService({
    acceptTransfer: (hello, channel) => {
      const source = sources.get(hello.migrationId);
      if (source === undefined) throw new MigrationFault("refused", "No migration waits for this destination");
      source.attach(hello, channel);
    },
  }),
  SERVE,
);
t.teardown(() => listener.close(0));

interface Outcome {
  readonly heard: Readonly<Record<End, readonly string[]>>;
  readonly ends: Readonly<Record<End, MigrationFault | undefined>>;
  readonly relay: BreakingRelay;
}

/** Plays a script over connections that the relay strikes. */
async function play(script: Script, strikes: readonly (Strike | undefined)[], byHand: boolean): Promise<Outcome> {
  const relay = await BreakingRelay.open(portOf(listener), strikes);
  const migrationId = randomBytes(6).toString("hex");
  const source = new ResumingSource({ ...PATIENT, peer: "destination" });
  source.retain(1 << 20);
  sources.set(migrationId, source);
  const destination = new ResumingDestination({
    ...PATIENT,
    peer: "source",
    migrationId,
    token: Uint8Array.of(1),
    dial: () => dialSource(`127.0.0.1:${relay.port}`, { ...LIMITS, byHand }),
    attemptMs: 20_000,
  });
  const heard: Record<End, string[]> = { source: [], destination: [] };
  const note = (end: End, message: SourceMessage | DestinationMessage): void => {
    if (!MOMENTARY.includes(message.kind)) heard[end].push(nameOf(message));
  };
  source.receive((message) => {
    note("source", message);
    for (const said of script.atSource(message)) said === "close" ? source.close() : source.send(said);
  });
  for (const message of script.begins) source.send(message);
  destination.receive((message) => {
    note("destination", message);
    if (message.kind === "frame") destination.send({ kind: "ack", sequence: message.sequence, appliedBytes: 4 });
    for (const said of script.atDestination(message)) said === "close" ? destination.close() : destination.send(said);
  });
  try {
    const ends = await bounded(
      Promise.all([source.closed, destination.closed]),
      ENDS_WITHIN_MS,
      `the end of ${script.name} after ${strikes.map(describe).join("; ")}, heard ${JSON.stringify(heard)}`,
    );
    return { heard, ends: { source: ends[0], destination: ends[1] }, relay };
  } finally {
    sources.delete(migrationId);
    relay.close();
  }
}

const describe = (strike: Strike | undefined): string =>
  strike === undefined ? "nothing" : `${strike.way.name} behind message ${strike.after} to the ${strike.to}`;

/** @returns what went wrong, in words */
function wrongs(script: Script, { heard, ends }: Outcome): string[] {
  const found: string[] = [];
  for (const end of ["source", "destination"] as const) {
    if (heard[end].join() !== script[end].join()) found.push(`the ${end} heard ${heard[end]}`);
    if (ends[end] !== undefined) found.push(`the ${end} ended with ${ends[end]?.code}: ${ends[end]?.message}`);
  }
  return found;
}

async function manyAtOnce(strikes: readonly Strike[], each: (strike: Strike) => Promise<void>): Promise<void> {
  const left = [...strikes];
  const worker = async (): Promise<void> => {
    for (let strike = left.pop(); strike !== undefined; strike = left.pop()) await each(strike);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

/** Before the first message that goes to an end, and after each message, over a connection that is left alone. */
function positions(script: Script): readonly Pick<Strike, "to" | "after">[] {
  const acks = script.destination.filter((name) => name.startsWith("frame")).length;
  const counts = { source: 1 + acks + script.source.length, destination: 1 + script.destination.length };
  return (["source", "destination"] as const).flatMap((to) =>
    Array.from({ length: counts[to] + 1 }, (_, after) => ({ to, after })),
  );
}

const CLIENTS = [
  ["by hand", true],
  ["by grpc-js", false],
] as const;

for (const [client, byHand] of CLIENTS)
  for (const script of [PRECOPY, POSTCOPY, REFUSED])
    t.test(`${script.name} ${client}: each message comes once and in order, whatever ends a connection`, async (t) => {
      t.same(wrongs(script, await play(script, [], byHand)), [], "connections that are left alone");
      const at = positions(script);
      const strikes = WAYS.flatMap((way) => at.map((position): Strike => ({ ...position, way })));
      const failures: string[] = [];
      let struck = 0;
      await manyAtOnce(strikes, async (strike) => {
        const outcome = await play(script, [strike], byHand);
        struck += outcome.relay.struck;
        failures.push(...wrongs(script, outcome).map((wrong) => `${describe(strike)}: ${wrong}`));
      });
      t.same(failures, []);
      t.equal(struck, strikes.length, "every strike came about");
    });

t.test(
  "each message comes once and in order, however many connections of a stream end, one after the other",
  async (t) => {
    const strikes = fc.array(
      fc.record({
        to: fc.constantFrom<End>("source", "destination"),
        after: fc.nat({ max: 5 }),
        way: fc.constantFrom(...WAYS),
      }),
      { maxLength: 4 },
    );
    await fc.assert(
      fc.asyncProperty(strikes, fc.boolean(), async (struck, byHand) => {
        const all = [PRECOPY, POSTCOPY, REFUSED].map(async (script) => {
          const found = wrongs(script, await play(script, struck, byHand));
          if (found.length > 0)
            throw new Error(`${struck.map(describe).join("; ")}, ${script.name}: ${found.join("; ")}`);
        });
        await Promise.all(all);
      }),
      { numRuns: 30 },
    );
    t.pass();
  },
);

t.test("a source that gives up is heard, or the agent says so when the destination dials again", async (t) => {
  const script: Script = {
    name: "a source that gives up",
    begins: [LAYOUT],
    atSource: ({ kind }) => (kind === "pong" ? [FAILURE, "close"] : []),
    atDestination: ({ kind }) => {
      if (kind === "layout") return [{ kind: "pong", value: 1 }];
      return kind === "failure" ? ["close"] : [];
    },
    source: ["pong"],
    destination: ["layout", "failure"],
  };
  for (const [client, byHand] of CLIENTS) {
    t.same(wrongs(script, await play(script, [], byHand)), [], client);
    const strikes = WAYS.flatMap((way) => [2, 3].map((after): Strike => ({ to: "destination", after, way })));
    await manyAtOnce(strikes, async (strike) => {
      const { heard, ends } = await play(script, [strike], byHand);
      const what = `${client}: ${describe(strike)}`;
      t.equal(ends.source, undefined, what);
      if (heard.destination.includes("failure")) t.equal(ends.destination, undefined, what);
      else t.match(ends.destination, { code: "refused", message: /has ended|No migration waits/ }, what);
    });
  }
});
