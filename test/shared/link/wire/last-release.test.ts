/**
 * Tests that this build and the last release understand each other: what either writes, the other reads as it was
 * meant. Both run in this process, the last release from its package (test/support/last-release.ts).
 */
import t, { type Test } from "tap";
import * as discardFrame from "../../../../shared/codec/discard-frame.ts";
import * as pageFrame from "../../../../shared/codec/page-frame.ts";
import * as services from "../../../../shared/link/grpc/services.ts";
import type { DomainMethod } from "../../../../shared/link/wire/proto-files.ts";
import { KERNEL_RESERVED_BYTES } from "../../../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../../../shared/page/kernels.ts";
import * as pageSet from "../../../../shared/page/page-set.ts";
import * as records from "../../../../shared/protocol/record-decoding.ts";
import * as journalFile from "../../../../shared/runtime/journal/journal-file.ts";
import * as kernels from "../../../../shared/runtime/load-kernels.ts";
import { address, PAGE_SIZE } from "../../../../shared/units.ts";
import { importLast, lastRelease } from "../../../support/last-release.ts";
import { call } from "../../../support/link-fixtures.ts";
import * as sample from "../../../support/message-samples.ts";

const ours = { services, pageFrame, discardFrame, pageSet, kernels, journalFile, records };
type Build = typeof ours;
const theirs: Build = {
  services: await importLast("services"),
  pageFrame: await importLast("pageFrame"),
  discardFrame: await importLast("discardFrame"),
  pageSet: await importLast("pageSet"),
  kernels: await importLast("kernels"),
  journalFile: await importLast("journalFile"),
  records: await importLast("records"),
};
const { version } = lastRelease();

/** Runs a test in both directions. */
function bothWays(title: string, check: (t: Test, writer: Build, reader: Build) => void): void {
  t.test(`${title}, as this build writes it and ${version} reads it`, async (t) => check(t, ours, theirs));
  t.test(`${title}, as ${version} writes it and this build reads it`, async (t) => check(t, theirs, ours));
}

interface Samples<Request, Response> {
  readonly requests?: readonly Request[];
  readonly responses?: readonly Response[];
}

/** The names of fields that the last release does not have. It leaves them out, and a reader takes their defaults. */
const NEWER: ReadonlySet<string> = new Set(["robust", "postcopyMayFollow"]);

/** Leaves the fields out that the last release does not have, at all levels. */
function known(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(known);
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return value;
  const fields = Object.entries(value).filter(([name]) => !NEWER.has(name));
  return Object.fromEntries(fields.map(([name, one]) => [name, known(one)]));
}

function methodCrosses<Request, Response>(
  t: Test,
  writer: DomainMethod<Request, Response>,
  reader: DomainMethod<Request, Response>,
  { requests = [], responses = [] }: Samples<Request, Response>,
): void {
  t.equal(writer.path, reader.path);
  for (const request of requests)
    t.same(known(reader.requestDeserialize(Buffer.from(writer.requestSerialize(request)))), known(request));
  for (const response of responses)
    t.same(reader.responseDeserialize(Buffer.from(writer.responseSerialize(response))), response);
}

bothWays("a handshake, and each question about a grant with each answer", (t, writer, reader) => {
  const [from, to] = [writer.services.destinationService, reader.services.destinationService];
  methodCrosses(t, from.Handshake, to.Handshake, {
    requests: [sample.FULL_OFFER],
    responses: [
      { kind: "contract", contract: sample.CONTRACT },
      { kind: "refusals", refusals: sample.REFUSALS },
    ],
  });
  methodCrosses(t, from.Settle, to.Settle, {
    requests: sample.SETTLE_CALLS,
    responses: sample.SETTLE_ANSWERS,
  });
});

bothWays("every message of the transfer stream", (t, writer, reader) => {
  const [from, to] = [writer.services.transferService, reader.services.transferService];
  methodCrosses(t, from.Transfer, to.Transfer, {
    requests: Object.values(sample.FROM_DESTINATION),
    responses: Object.values(sample.FROM_SOURCE),
  });
  const { frame } = sample.FROM_SOURCE;
  methodCrosses(t, from.Transfer, to.Transfer, {
    responses: (["pages", "verbatim", "discards", "package"] as const).flatMap((frameKind) =>
      (["none", "zstd"] as const).map((codec) => ({ ...frame, frameKind, codec })),
    ),
  });
});

bothWays("every call of an operator, with its answer", (t, writer, reader) => {
  const [from, to] = [writer.services.migrationService, reader.services.migrationService];
  methodCrosses(t, from.ListGuests, to.ListGuests, { requests: [{}], responses: [sample.GUESTS] });
  const plan = { migration: call, observeMs: 5000 };
  methodCrosses(t, from.Plan, to.Plan, { requests: [plan], responses: [sample.PLAN] });
  methodCrosses(t, from.Migrate, to.Migrate, { requests: [call], responses: sample.VIEWS });
  methodCrosses(t, from.GetMigration, to.GetMigration, { requests: ["m-1"], responses: sample.VIEWS });
  methodCrosses(t, from.ListMigrations, to.ListMigrations, { requests: [{}], responses: [sample.VIEWS] });
  methodCrosses(t, from.WatchMigration, to.WatchMigration, { requests: ["m-1"], responses: sample.VIEWS });
  methodCrosses(t, from.CancelMigration, to.CancelMigration, { requests: ["m-1"], responses: sample.VIEWS });
  const heat = { idOrGuest: "web", cells: 3 };
  methodCrosses(t, from.GetHeatMap, to.GetHeatMap, { requests: [heat], responses: [sample.HEAT_MAP] });
  const word = { id: "m-1", keep: "destination", confirmed: true } as const;
  methodCrosses(t, from.ResolveMigration, to.ResolveMigration, { requests: [word], responses: sample.VIEWS });
  t.same(Object.keys(to).sort(), Object.keys(from).sort(), "neither build has a method that the other lacks");
});

t.test("a plan that puts robustness first does so at an agent of the last release", async (t) => {
  const migration = { ...call, options: { ...call.options, robust: true } };
  const bytes = ours.services.migrationService.Plan.requestSerialize({ migration, observeMs: 5000 });
  t.match(theirs.services.migrationService.Plan.requestDeserialize(Buffer.from(bytes)), { robust: true });
});

const PAGES = 64;
const FRAME_BYTES = 4 * PAGE_SIZE;
/** Where in the kernels' memory a frame is, and where a page and the checksum of a frame are, behind the frame. */
const FRAME_AT = KERNEL_RESERVED_BYTES;
const PAGE_AT = FRAME_AT + pageFrame.frameBufferBytes(FRAME_BYTES);
const BASE_AT = PAGE_AT + PAGE_SIZE;
const CHECKSUM_AT = BASE_AT + PAGE_SIZE;
const MEMORY_BYTES = CHECKSUM_AT + 8;

/** Makes pages that differ in a few bytes: the base of a delta, and what the page is now. */
function makePages({ memory }: PageKernels): void {
  memory.fill(7, BASE_AT, BASE_AT + PAGE_SIZE);
  memory.fill(7, PAGE_AT, PAGE_AT + PAGE_SIZE);
  memory.set([1, 2, 3], PAGE_AT + 100);
}

const checksumOf = (made: PageKernels, at: number, length: number): Uint8Array => {
  made.checksum(address(at), length, address(CHECKSUM_AT));
  return made.memory.slice(CHECKSUM_AT, CHECKSUM_AT + 8);
};

bothWays("a frame with zero pages, a full page and a delta, and its checksum", (t, writer, reader) => {
  const from = writer.kernels.loadKernels(MEMORY_BYTES);
  makePages(from);
  const frame = new writer.pageFrame.PageFrameWriter(from);
  frame.begin(address(FRAME_AT), FRAME_BYTES);
  frame.zeroRun(2, 3);
  frame.full(60, address(PAGE_AT));
  const delta = from.encodeDelta(address(BASE_AT), address(PAGE_AT), frame.deltaPlace, PAGE_SIZE);
  t.ok(delta > 0, `the delta has ${delta} bytes`);
  frame.delta(1, delta);
  const length = frame.finish();
  // frames of the last release begin where their room begins
  const at = writer === theirs ? FRAME_AT : frame.frameAt;

  const to = reader.kernels.loadKernels(MEMORY_BYTES);
  makePages(to);
  to.memory.set(from.memory.subarray(at, at + length), FRAME_AT);
  t.same(checksumOf(to, FRAME_AT, length), checksumOf(from, at, length));
  const seen: unknown[] = [];
  const opened = new reader.pageFrame.PageFrameReader(to, PAGES, true);
  opened.open(address(FRAME_AT), length);
  const isFinished = opened.drain({
    hasRoom: true,
    zeroPage: (page) => seen.push(["zero", page]),
    page: (page, at) => seen.push(["full", page, to.equal(address(at), address(PAGE_AT))]),
    delta: (page, at, bytes) => {
      to.decodeDelta(address(BASE_AT), address(at), bytes);
      seen.push(["delta", page, to.equal(address(BASE_AT), address(PAGE_AT))]);
    },
  });
  t.equal(isFinished, true);
  t.same(seen, [
    ["zero", 2],
    ["zero", 3],
    ["zero", 4],
    ["full", 60, true],
    ["delta", 1, true],
  ]);
});

bothWays("a frame of discards", (t, writer, reader) => {
  const set = new writer.pageSet.PageSet(300_000);
  const ranges = [
    [0, 1],
    [200, 70_000],
    [299_999, 1],
  ] as const;
  for (const [first, count] of ranges) set.addRange(first, count);
  const seen: unknown[] = [];
  for (const body of writer.discardFrame.encodeDiscards(set))
    reader.discardFrame.readDiscards(body, set.pageCount, (first, count) => seen.push([first, count]));
  t.same(seen, ranges);
});

bothWays("every record of the journals", (t, writer, reader) => {
  const back = (record: object): unknown =>
    reader.journalFile.decodeFile("m-1", writer.journalFile.encode("m-1", record));
  for (const record of sample.SOURCE_JOURNAL) t.same(reader.records.decodeSourceRecord(back(record)), record);
  for (const record of sample.DESTINATION_JOURNAL) t.same(reader.records.decodeDestinationRecord(back(record)), record);
});
