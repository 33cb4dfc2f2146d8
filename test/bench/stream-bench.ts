/**
 * Measures the speed of the stream's reader and writer: `node dist/test/bench/stream-bench.js [REGEX of case
 * names]`. The stream is in shared memory, as in the agents, and has sections of 256 records, as QEMU makes them. The
 * rates count bytes of guest memory. The reader's sink looks at one byte of each page, so that V8 leaves no work out.
 */
import { fileURLToPath } from "node:url";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import { StreamReader, type StreamSink } from "../../shared/qemu/stream/stream-reader.ts";
import { StreamWriter } from "../../shared/qemu/stream/stream-writer.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { address, PAGE_SIZE } from "../../shared/units.ts";
import { StreamBytes } from "../support/fake-stream.ts";
import { type Round, summary, timed } from "./measure.ts";

const SECTION = 1;
const BLOCK_PAGES = 1 << 18;
const RECORDS = 8192;
const RECORDS_PER_SECTION = 256;
/** The most bytes of the stream: the records with their block's name in each, and the sections' heads. */
const STREAM_BYTES = RECORDS * (PAGE_SIZE + 32);
const WINDOW_BYTES = 1 << 20;
const AT = KERNEL_RESERVED_BYTES;
const OUT = AT + STREAM_BYTES;
const ROUNDS = 24;
const SETTLING_ROUNDS = 8;

export interface StreamMeasurement {
  readonly name: string;
  /** The median round, in 1e9 bytes of guest memory a second; `slowest` and `fastest` are the extremes. */
  readonly gigabytesPerSecond: number;
  readonly slowest: number;
  readonly fastest: number;
  readonly cpuSecondsPerGigabyte: number;
  /** How many times as fast as one copy of the stream's bytes it was, by the medians; only for streams with pages. */
  readonly timesCopy?: number;
  readonly nanosecondsPerPage: number;
  /** By how much the JavaScript heap grew for each page. Below 1, no object is made for a page. */
  readonly heapBytesPerPage: number;
}

interface Case {
  readonly name: string;
  readonly zero: (record: number) => boolean;
  readonly rewrite: boolean;
}

const CASES: readonly Case[] = [
  { name: "read, full pages", zero: () => false, rewrite: false },
  { name: "read, zero pages", zero: () => true, rewrite: false },
  { name: "read, every other page zero", zero: (record) => record % 2 === 0, rewrite: false },
  { name: "read and write, full pages", zero: () => false, rewrite: true },
];

const layout = [{ name: "pc.ram", byteLength: BLOCK_PAGES * PAGE_SIZE }] as const;

function prologue(): Buffer {
  const bytes = new StreamBytes().be32(0x5145564d).be32(3).u8(7).be32(2).bytes(Buffer.from("pc"));
  bytes.u8(1).be32(SECTION).name("ram").be32(0).be32(4);
  bytes.be64(BLOCK_PAGES * PAGE_SIZE + 4).name("pc.ram");
  return bytes
    .be64(BLOCK_PAGES * PAGE_SIZE)
    .be64(0x10)
    .u8(0x7e)
    .be32(SECTION)
    .done();
}

/** Looks at the pages, or writes them again if it has a writer. */
class BenchSink implements StreamSink {
  sum = 0;
  private readonly memory: Uint8Array;
  private readonly writer: StreamWriter | undefined;

  constructor(memory: Uint8Array, writer: StreamWriter | undefined) {
    this.memory = memory;
    this.writer = writer;
  }
  prologue(): void {}
  layout(): void {}
  page(page: number, at: number): boolean {
    this.sum += page + this.memory[at]!;
    if (this.writer === undefined) return true;
    if (!this.writer.room(2 * PAGE_SIZE)) this.writer.begin(OUT, OUT + WINDOW_BYTES);
    this.writer.page(page, at);
    return true;
  }
  zeroPage(page: number): boolean {
    this.sum += page;
    return true;
  }
  partEnd(): boolean {
    return true;
  }
  stopped(): void {}
  ramEnd(): void {}
  device(): void {}
  end(): void {}
}

/** Writes the sections into the memory. @returns the address after them */
function writeStream(writer: StreamWriter, zero: Case["zero"]): number {
  writer.layout(layout);
  writer.begin(AT, OUT);
  for (let record = 0; record < RECORDS; record++) {
    if (record % RECORDS_PER_SECTION === 0) writer.partStart(SECTION);
    // the page numbers grow, as in QEMU's stream, and go over the whole block
    const page = (record * 31) % BLOCK_PAGES;
    if (zero(record)) writer.zeroPage(page);
    else writer.page(page, OUT);
    if ((record + 1) % RECORDS_PER_SECTION === 0) writer.partEnd(SECTION);
  }
  return writer.position;
}

function measure(one: Case): StreamMeasurement {
  const kernels = loadKernels(OUT + WINDOW_BYTES);
  const { memory } = kernels;
  const copy = (to: number, from: number, length: number): void => kernels.copy(address(to), address(from), length);
  for (let i = 0; i < PAGE_SIZE; i++) memory[OUT + i] = i * 7 + 1;
  const end = writeStream(new StreamWriter(memory, copy), one.zero);
  const writer = one.rewrite ? new StreamWriter(memory, copy) : undefined;
  writer?.layout(layout);
  const sink = new BenchSink(memory, writer);
  const reader = new StreamReader(memory, sink);
  const head = prologue();
  memory.set(head, OUT);
  if (reader.consume(OUT, OUT + head.length) !== OUT + head.length) throw new RangeError("the prologue was not taken");
  const round = (): void => {
    // the reader gets as much at a time as a window holds
    for (let at = AT; at < end; ) at = reader.consume(at, Math.min(end, at + WINDOW_BYTES));
  };
  for (let i = 0; i < SETTLING_ROUNDS; i++) round();
  const guestBytes = RECORDS * PAGE_SIZE;
  const rounds: Round[] = [];
  let heapBytes = 0;
  for (let i = 0; i < ROUNDS; i++) {
    const before = process.memoryUsage().heapUsed;
    rounds.push(timed(guestBytes, round));
    heapBytes += process.memoryUsage().heapUsed - before;
  }
  // the peer copies the bytes of the stream, a window at a time
  const copyRounds = Array.from({ length: ROUNDS }, () =>
    timed(guestBytes, () => {
      for (let at = AT; at < end; at += WINDOW_BYTES) copy(OUT, at, Math.min(WINDOW_BYTES, end - at));
    }),
  );
  if (sink.sum === 0) throw new RangeError("no page was seen");
  const rates = summary(rounds);
  return {
    name: one.name,
    ...rates,
    ...(one.zero(1) ? {} : { timesCopy: rates.gigabytesPerSecond / summary(copyRounds).gigabytesPerSecond }),
    nanosecondsPerPage: PAGE_SIZE / rates.gigabytesPerSecond,
    heapBytesPerPage: heapBytes / (ROUNDS * RECORDS),
  };
}

/** Runs the cases whose name matches; takes about two seconds and 40 MiB. */
export function benchStream(report: (measurement: StreamMeasurement) => void, matching = /./): void {
  for (const one of CASES) if (matching.test(one.name)) report(measure(one));
}

function streamLine(measurement: StreamMeasurement): string {
  const { name, gigabytesPerSecond, slowest, fastest, nanosecondsPerPage, heapBytesPerPage } = measurement;
  const rate = `${gigabytesPerSecond.toFixed(2).padStart(8)} GB/s (${slowest.toFixed(2)} to ${fastest.toFixed(2)})`;
  return `${name.padEnd(28)} ${rate}, ${nanosecondsPerPage.toFixed(0)} ns and ${heapBytesPerPage.toFixed(2)} bytes of heap a page`;
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  benchStream((measurement) => console.log(streamLine(measurement)), new RegExp(process.argv[2] ?? "."));
