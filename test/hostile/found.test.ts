/** What the fuzzing and the two agents that are played have found, each with the smallest input that shows it. */
import t from "tap";
import { LinkMeter } from "../../agent-source/link/link-meter.ts";
import { PeerInbox } from "../../agent-source/link/peer-inbox.ts";
import { MigrationFault } from "../../shared/fault.ts";
import { connectDestination } from "../../shared/link/grpc/grpc-link.ts";
import { serveDestination } from "../../shared/link/grpc/grpc-server.ts";
import { destinationService, migrationService } from "../../shared/link/grpc/services.ts";
import { methodOf } from "../../shared/link/wire/proto-files.ts";
import { describeBlocks } from "../../shared/protocol/handshake.ts";
import type { DestinationMessage } from "../../shared/protocol/stream-messages.ts";
import { systemClock } from "../../shared/runtime/clock.ts";
import { startAgain } from "../support/destination-again.ts";
import { LIMITS, SERVE } from "../support/link.ts";
import { COMPLETE, call, offer } from "../support/link-fixtures.ts";
import { memoryTransfer } from "../support/memory-link.ts";
import { memoryInUse } from "./memory-in-use.ts";

t.test("an operator's id, or the name of a guest, has 256 characters at most", async (t) => {
  const long = "x".repeat(257);
  const { GetMigration, GetHeatMap, ResolveMigration, Migrate } = migrationService;
  const wrong = { code: "invalid-argument", message: /257 characters; at most 256 are allowed/ };
  t.match(GetMigration.requestDeserialize(GetMigration.requestSerialize(long)), wrong);
  t.match(GetHeatMap.requestDeserialize(GetHeatMap.requestSerialize({ idOrGuest: long, cells: 1 })), wrong);
  const word = { id: long, keep: "source", confirmed: true } as const;
  t.match(ResolveMigration.requestDeserialize(ResolveMigration.requestSerialize(word)), wrong);
  t.match(Migrate.requestDeserialize(Migrate.requestSerialize({ ...call, guest: long })), wrong);
  t.equal(GetMigration.requestDeserialize(GetMigration.requestSerialize("x".repeat(256))), "x".repeat(256));
});

t.test("a fault shows only the beginning of a word that is not valid", async (t) => {
  const { requestSerialize } = methodOf("DestinationService", "Settle");
  const asked = { migrationId: "m-1", token: Buffer.alloc(16), ask: "y".repeat(60_000) };
  t.match(destinationService.Settle.requestDeserialize(requestSerialize(asked)), {
    code: "peer-invalid",
    message: `The peer's message is not valid: ask is ${"y".repeat(40)}…`,
  });
});

t.test("a codec that a peer names a thousand times is one codec", async (t) => {
  const { Handshake } = destinationService;
  const codecs = new Array<"zstd" | "xbzrle">(1000).fill("zstd").concat("xbzrle");
  const given = { ...offer, transfer: { ...offer.transfer, codecs } };
  t.match(Handshake.requestDeserialize(Handshake.requestSerialize(given)), {
    transfer: { codecs: ["zstd", "xbzrle"] },
  });
});

t.test("a text about thousands of RAM blocks that differ names eight of them, and takes little time", async (t) => {
  const blocks = (name: string) =>
    Array.from({ length: 4096 }, (_, index) => ({
      name: `${name}${index}`.padEnd(256, "x"),
      byteLength: 1,
      pageSize: 1,
    }));
  const began = process.cpuUsage();
  const text = describeBlocks(blocks("a"), blocks("b"));
  const { user } = process.cpuUsage(began);
  t.match(text, /^a0x+ is missing at the destination; a1x.*; and 8184 more$/);
  t.ok(text.length < 2500, `${text.length} characters`);
  t.ok(user < 300_000, `${user} µs`);
});

/** A source's inbox in post-copy, and the destination's end of its stream. */
function postcopyInbox() {
  const { source, destination } = memoryTransfer();
  destination.receive(() => undefined);
  const inbox = new PeerInbox(source, new LinkMeter(), systemClock, () => undefined);
  inbox.postcopy = { request: () => undefined, pong: () => undefined };
  const says = async (message: DestinationMessage): Promise<MigrationFault | undefined> => {
    destination.send(message);
    return await source.closed;
  };
  return { inbox, says };
}

t.test("a destination may not say that it has every page of a guest which it was not granted", async (t) => {
  const { says } = postcopyInbox();
  t.match(await says(COMPLETE), { code: "peer-invalid", message: /every page, without a grant/ });
});

t.test("a destination that tells of more pages than its bits have is told as an invalid peer", async (t) => {
  const { inbox, says } = postcopyInbox();
  void inbox.askMissing(64);
  const told = { kind: "missing", firstPage: 0, pageCount: 64, bits: Buffer.alloc(7), last: true } as const;
  t.match(await says(told), { code: "peer-invalid", message: /with only 7 bytes which of 64 pages it misses/ });
});

t.test("a destination's fault is told as peer-failed, and never says where the guest is", async (t) => {
  for (const code of ["cancelled", "in-doubt", "two-copies"] as const) {
    const settle = (): Promise<never> =>
      Promise.reject(
        new MigrationFault(code, "No", { guestNow: "the guest runs at the destination", advice: "End it here" }),
      );
    const listener = await serveDestination({ handshake: settle, settle }, SERVE);
    t.teardown(() => listener.close(0));
    const client = connectDestination(listener.address, LIMITS);
    t.teardown(() => client.close());
    const fault = await client.handshake(offer, 20_000).catch((thrown: unknown) => thrown);
    t.match(fault, { code: "peer-failed", message: "No", advice: "End it here" });
    t.equal((fault as MigrationFault).guestNow, undefined);
  }
});

/**
 * How many questions are asked. A source in doubt asks one every few seconds, for as long as the doubt lasts: so many
 * questions are some hours of one migration.
 */
const QUESTIONS = 3000;
/**
 * How much memory so many questions may leave in use, bytes. A promise that is raced would leave some hundreds of bytes
 * for each question.
 */
const LEFT_MAX = 1 << 20;

t.test("questions that were answered leave no memory in use in a migration that stays undecided", async (t) => {
  const { agent } = await startAgain(t, { kind: "waiting", status: "paused" });
  const entries: ReadonlyMap<string, { decided(ask: "withdraw", ms: number): Promise<void> }> = Reflect.get(
    agent,
    "entries",
  );
  const [entry] = entries.values();
  if (entry === undefined) throw new TypeError("no migration");
  const ask = async (): Promise<void> => {
    for (let asked = 0; asked < QUESTIONS; asked += 100)
      await Promise.all(Array.from({ length: 100 }, () => entry.decided("withdraw", 1)));
  };
  await ask();
  const before = memoryInUse().bytes;
  await ask();
  const grown = memoryInUse().bytes - before;
  t.ok(grown < LEFT_MAX, `${grown} bytes more are in use`);
});
