/**
 * Tests the readers of messages, the hand-written one for frames and the generated ones, with protobuf that no agent
 * writes.
 */
import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../shared/fault.ts";
import { destinationService, migrationService, transferService } from "../../shared/link/grpc/services.ts";
import { decodeFrame, encodeFrame } from "../../shared/link/wire/frame-wire.ts";
import { type DomainMethod, methodOf } from "../../shared/link/wire/proto-files.ts";
import type { DestinationMessage, Frame, SourceMessage } from "../../shared/protocol/stream-messages.ts";
import { result, view } from "../support/cli-fixtures.ts";
import { codeOf, FILE_MS, forAWhile, named, spoiled } from "../support/hostile.ts";
import { call, offer } from "../support/link-fixtures.ts";

t.setTimeout(FILE_MS);

const frame: Frame = {
  kind: "frame",
  sequence: 300,
  frameKind: "pages",
  codec: "zstd",
  rawLength: 70_000,
  checksum: Buffer.alloc(8, 3),
  body: Buffer.alloc(120, 5),
};
const blocks = offer.guest.ramBlocks;
const fromSource: readonly SourceMessage[] = [
  frame,
  { kind: "welcome", received: 7, generation: 0 },
  { kind: "probe", sequence: 1, padding: Buffer.alloc(100) },
  { kind: "layout", blocks, ramSectionId: 4 },
  { kind: "clockPing", nonce: 2 ** 40 },
  { kind: "endOfStream", lastSequence: 2 ** 33 },
  { kind: "verifyRequest", start: 2 ** 32, byteLength: 2 ** 20, last: true },
  { kind: "grant", token: Buffer.alloc(16), epoch: 2, paused: true },
  { kind: "failure", code: "cancelled", message: "Gave up", refusedToken: Buffer.alloc(0) },
];
const fromDestination: readonly DestinationMessage[] = [
  {
    kind: "hello",
    migrationId: "m-1",
    token: Buffer.alloc(16),
    attempt: 1,
    received: 0,
    generation: 0,
    restarted: false,
  },
  { kind: "ack", sequence: 9, appliedBytes: 2 ** 41 },
  { kind: "clockReply", nonce: 3, destinationTimeUs: 1.7e15 },
  { kind: "loaded", lastSequence: 9, lastByteAtUs: 1.7e15, loadedAtUs: 1.7e15 + 1 },
  { kind: "pageDigests", start: 0, byteLength: 4096, digests: Buffer.alloc(16, 1), last: false },
  { kind: "running", epoch: 2, resumedAtUs: 1, grantedAtUs: 2, agentCpuSeconds: 0.25, agentPeakMemoryBytes: 2 ** 34 },
  { kind: "failure", code: "qemu-failed", message: "Ended", refusedToken: Buffer.alloc(16) },
];
const contract = {
  protocolVersion: 1,
  codecs: ["xbzrle"],
  frameBytes: 262_144,
  creditWindowBytes: 2 ** 33,
  destinationQemuVersion: { major: 10, minor: 0, micro: 2 },
  destinationFreeMemoryBytes: 2 ** 37,
  followUpMs: 30_000,
  strategy: "precopy",
  postcopy: false,
  strategies: ["precopy"],
  onDeadline: "cancel",
  postcopyObstacle: "",
  comparesDisks: true,
  warnings: [],
  measuresLink: false,
  ramBlocks: blocks,
} as const;
const refused = { kind: "refusals", refusals: [{ code: "qemu-older", message: "QEMU 9.0 is older" }] } as const;

/** A reader of bytes of a peer or an operator, with good bytes for it. */
interface Reader {
  readonly read: (bytes: Buffer) => unknown;
  readonly good: readonly Uint8Array[];
}
const requests = <Q, A>(method: DomainMethod<Q, A>, good: readonly Q[]): Reader => ({
  read: method.requestDeserialize,
  good: good.map((one) => Buffer.from(method.requestSerialize(one))),
});
const answers = <Q, A>(method: DomainMethod<Q, A>, good: readonly A[]): Reader => ({
  read: method.responseDeserialize,
  good: good.map((one) => Buffer.from(method.responseSerialize(one))),
});
const readers: readonly Reader[] = [
  requests(transferService.Transfer, fromDestination),
  answers(transferService.Transfer, fromSource),
  requests(destinationService.Handshake, [offer]),
  answers(destinationService.Handshake, [{ kind: "contract", contract }, refused]),
  requests(destinationService.Settle, [
    { migrationId: "m-1", token: Buffer.alloc(16), epoch: 1, ask: "grant", paused: true },
    { migrationId: "m-1", token: Buffer.alloc(16), epoch: 1, ask: "withdraw", paused: false },
    { migrationId: "m-1", token: Buffer.alloc(16), epoch: 1, ask: "kept", paused: false },
  ] as const),
  answers(destinationService.Settle, [
    { standing: "unknown", reason: "no record" },
    { standing: "refused", reason: "no record" },
  ] as const),
  requests(migrationService.Migrate, [call]),
  requests(migrationService.Plan, [{ migration: call, observeMs: 5000 }]),
  requests(migrationService.GetHeatMap, [{ idOrGuest: "web", cells: 30 }]),
  requests(migrationService.ResolveMigration, [{ id: "m-1", keep: "source", confirmed: true } as const]),
  requests(migrationService.GetMigration, ["m-1"]),
  answers(migrationService.Migrate, [view({ result: result() })]),
  answers(migrationService.ListMigrations, [[view(), view({ status: "inDoubt" })]]),
];

/** The codes of a message that is wrong: the first if a peer sent it, the second if an operator did. */
const CODES = ["peer-invalid", "invalid-argument"] as const;

function check({ read }: Reader, bytes: Buffer): void {
  const got = read(bytes);
  if (got instanceof MigrationFault) codeOf(got, CODES);
}

t.test("every reader reads a spoiled message as some message or refuses it by name", async () => {
  const one = fc.constantFrom(...readers).chain((reader) => fc.tuple(fc.constant(reader), spoiled(reader.good)));
  forAWhile(one, ([reader, bytes]) => check(reader, bytes));
});

t.test("every reader reads random bytes and fields as some message or refuses them by name", async () => {
  const field = fc
    .tuple(fc.integer({ min: 1, max: 20 }), fc.nat(7), fc.uint8Array({ maxLength: 12 }))
    .map(([number, type, bytes]) => Buffer.concat([Buffer.of(number * 8 + type, bytes.length), bytes]));
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 60 }).map((one) => Buffer.from(one)),
    fc.array(field, { maxLength: 8 }).map((fields) => Buffer.concat(fields)),
  );
  forAWhile(fc.tuple(fc.constantFrom(...readers), bytes), ([reader, given]) => check(reader, given));
});

t.test("a spoiled frame is read as a frame that fits into its message or refused by name", async () => {
  forAWhile(spoiled([Buffer.from(encodeFrame(frame))]), (bytes) => {
    named(["peer-invalid"], () => {
      const got = decodeFrame(bytes);
      if (got.checksum.length !== 8 || got.body.length > bytes.length || !Number.isSafeInteger(got.sequence))
        throw new Error(`a frame of ${got.body.length} bytes with a checksum of ${got.checksum.length}`);
    });
  });
});

t.test("groups nested without end and lengths that are only claimed take no memory", async (t) => {
  const deep = Buffer.alloc(1 << 20, 0x7b);
  const claim = Buffer.from("0affffffff0f", "hex");
  const before = process.memoryUsage.rss();
  for (const { read } of readers)
    for (const bytes of [deep, claim, Buffer.concat([claim, claim])]) {
      const got = read(bytes);
      if (got instanceof MigrationFault) t.ok(CODES.some((code) => code === got.code));
    }
  t.throws(() => decodeFrame(claim), { code: "peer-invalid" });
  t.ok(process.memoryUsage.rss() - before < 64 << 20);
});

t.test("a layout with more blocks than any machine has is refused", async (t) => {
  const block = { name: "", byteLength: 0, pageSize: 4096 };
  const layout = (count: number): unknown =>
    transferService.Transfer.responseDeserialize(
      methodOf("TransferService", "Transfer").responseSerialize({
        layout: { blocks: new Array(count).fill(block), ramSectionId: 1 },
      }),
    );
  t.match(layout(4096), { kind: "layout" });
  t.match(layout(4097), { code: "peer-invalid", message: /RAM blocks are 4097/ });
});

t.test("the texts and lists of a peer's failures and refusals are cut to a limit", async (t) => {
  const message = "x".repeat(100_000);
  const failure = { kind: "failure", code: message, message, refusedToken: Buffer.alloc(0) } as const;
  const { Transfer } = transferService;
  const { Handshake } = destinationService;
  const cut = "x".repeat(2000);
  t.match(Transfer.responseDeserialize(Transfer.responseSerialize(failure)), { code: "unknown", message: cut });
  t.match(Transfer.requestDeserialize(Transfer.requestSerialize(failure)), { code: "unknown", message: cut });
  const answer = { kind: "refusals", refusals: new Array(1000).fill({ code: "x", message }) } as const;
  const read = Handshake.responseDeserialize(Handshake.responseSerialize(answer));
  t.same(read, { kind: "refusals", refusals: new Array(64).fill({ code: "x", message: cut }) });
});

t.test("a message that is no frame is refused unread if it is longer than any real one", async (t) => {
  const { Transfer } = transferService;
  const probe = (length: number): unknown =>
    Transfer.responseDeserialize(
      Transfer.responseSerialize({ kind: "probe", sequence: 1, padding: Buffer.alloc(length) }),
    );
  t.match(probe(64 << 10), { kind: "probe" });
  t.match(probe(1 << 20), { code: "peer-invalid", message: /that is no frame/ });
});

t.test("an offer is refused if its id cannot be the name of a file, or its token has a wrong length", async (t) => {
  const { Handshake } = destinationService;
  const offered = (changes: object): unknown =>
    Handshake.requestDeserialize(Handshake.requestSerialize({ ...offer, ...changes }));
  for (const migrationId of ["", "../../etc/passwd", ".", "a/b", "a\0", "x".repeat(65)])
    t.match(offered({ migrationId }), { code: "peer-invalid", message: /migration id/ }, migrationId);
  for (const length of [0, 65])
    t.match(offered({ token: Buffer.alloc(length) }), { code: "peer-invalid", message: /token/ });
  t.match(offered({ migrationId: "0af9", token: Buffer.alloc(16) }), { migrationId: "0af9" });
});

t.test("a call for a heat map of more cells than the limit is refused", async (t) => {
  const asked = (cells: number): unknown =>
    migrationService.GetHeatMap.requestDeserialize(
      migrationService.GetHeatMap.requestSerialize({ idOrGuest: "web", cells }),
    );
  t.match(asked(16_384), { cells: 16_384 });
  t.match(asked(0), { cells: 256 });
  t.match(asked(0xffffffff), { code: "invalid-argument", message: /cells is 4294967295/ });
});
