/**
 * Makes a stream with post-copy from a seed, as QEMU would write it, and writes again what the reader tells of it. It
 * is for tests of the reader and the writers.
 */
import {
  DiscardEncoder,
  encodeAdvise,
  encodePackageHead,
  encodePing,
  encodePostcopyEnd,
} from "../../shared/qemu/stream/command-encoder.ts";
import { type PostcopySink, StreamReader, type StreamSink } from "../../shared/qemu/stream/stream-reader.ts";
import type { StreamLimits } from "../../shared/qemu/stream/stream-setup.ts";
import { StreamWriter } from "../../shared/qemu/stream/stream-writer.ts";
import { picker, ramStart, SectionMaker, StreamBytes, streamHead } from "./fake-stream.ts";
import { feedPieces } from "./rewrite-stream.ts";

const WINDOW = 65536;
const BLOCKS = [
  ["pc.ram", 40],
  ["pc.bios", 4],
  ["/rom@etc/acpi/tables", 2],
] as const;

export const openReturnPath = (): StreamBytes => new StreamBytes().u8(8).be16(1).be16(0);
export const ping = (value: number): StreamBytes => new StreamBytes().u8(8).be16(2).be16(4).be32(value);
export const advise = (sizes = 4096, target = 4096): StreamBytes =>
  new StreamBytes().u8(8).be16(3).be16(16).be64(sizes).be64(target);
export const switchoverStart = (): StreamBytes => new StreamBytes().u8(8).be16(11).be16(0);
export const discard = (name: string, ranges: readonly (readonly [start: number, bytes: number])[]): StreamBytes => {
  const out = new StreamBytes().u8(8).be16(6);
  out
    .be16(3 + name.length + 16 * ranges.length)
    .u8(0)
    .name(name)
    .u8(0);
  for (const [start, bytes] of ranges) out.be64(start).be64(bytes);
  return out;
};
export const packaged = (length: number): StreamBytes => new StreamBytes().u8(8).be16(7).be16(4).be32(length);

/**
 * The beginning of such a stream: header, configuration, ADVISE, and the start of RAM with the blocks `pc.ram` of 40
 * pages, `pc.bios` of 4, and another of 2.
 */
export const advisedSetup = (): StreamBytes =>
  streamHead().bytes(openReturnPath().done()).bytes(ping(1).done()).bytes(advise().done()).bytes(ramStart(BLOCKS));

export interface FakePostcopy {
  /** The whole stream. */
  readonly bytes: Buffer;
  /** The stream without OPEN_RETURN_PATH and SWITCHOVER_START, which the reader does not tell its sink. */
  readonly told: Buffer;
  readonly package: Buffer;
  readonly pages: SectionMaker["pages"];
}

export function fakePostcopy(seed: number, { packageBytes = 300 } = {}): FakePostcopy {
  const pick = picker(seed);
  const maker = new SectionMaker(BLOCKS, pick);
  const setup = ramStart(BLOCKS);
  const before = Buffer.concat([maker.section(2, 4), maker.section(2, 3)]);
  const discards = [
    // more ranges than fit into one command, and then the same block once more
    discard(
      "pc.ram",
      Array.from({ length: 12 }, (_, i) => [i * 12288, 4096]),
    ),
    discard("pc.ram", [[147456, 8192 + 4096 * pick(3)]]),
    discard("/rom@etc/acpi/tables", [[0, 8192]]),
  ].map((one) => one.done());
  const body = Buffer.from(Array.from({ length: packageBytes }, () => pick(256)));
  const switching = Buffer.concat([...discards, ping(2).done(), packaged(packageBytes).done(), body, ping(4).done()]);
  const after = Buffer.concat([maker.section(2, 1), maker.section(2, 2), maker.section(3, 1), Buffer.of(0)]);
  const opening = Buffer.concat([ping(1).done(), advise().done()]);
  const head = streamHead().done();
  const bytes = [head, openReturnPath().done(), opening, setup, before, switchoverStart().done(), switching, after];
  const told = [head, opening, setup, before, switching, after];
  return { bytes: Buffer.concat(bytes), told: Buffer.concat(told), package: body, pages: maker.pages };
}

/**
 * Records what the reader tells, in order, and writes the stream again from that. A section is written in memory after
 * the window for reading.
 */
export class PostcopyRewriter implements StreamSink, PostcopySink {
  readonly log: string[] = [];
  readonly pages: { page: number; content: Buffer | undefined }[] = [];
  readonly pieces: Buffer[] = [];
  readonly packagePieces: Buffer[] = [];
  pagesBefore = 0;
  private readonly memory: Uint8Array;
  private readonly refuse: () => boolean;
  private readonly writer: StreamWriter;
  private discards = new DiscardEncoder([], () => undefined);
  private sectionId = 0;
  private open = false;

  constructor(memory: Uint8Array, refuse: () => boolean) {
    this.memory = memory;
    this.refuse = refuse;
    this.writer = new StreamWriter(memory, (to, from, length) => memory.copyWithin(to, from, from + length));
    this.writer.begin(WINDOW, memory.length);
  }
  prologue(start: number, end: number): void {
    this.put(this.memory.slice(start, end));
  }
  layout({ ramSectionId, blocks }: Parameters<StreamSink["layout"]>[0]): void {
    this.sectionId = ramSectionId;
    this.writer.layout(blocks);
    this.discards = new DiscardEncoder(blocks, (command) => this.put(command));
    this.log.push("layout");
  }
  page(page: number, at: number): boolean {
    if (this.refuse()) return false;
    this.section();
    this.writer.page(page, at);
    this.pages.push({ page, content: Buffer.from(this.memory.slice(at, at + 4096)) });
    return true;
  }
  zeroPage(page: number): boolean {
    if (this.refuse()) return false;
    this.section();
    this.writer.zeroPage(page);
    this.pages.push({ page, content: undefined });
    return true;
  }
  partEnd(): boolean {
    this.section();
    this.writer.partEnd(this.sectionId);
    this.put(this.memory.slice(WINDOW, this.writer.position));
    this.writer.begin(WINDOW, this.memory.length);
    this.open = false;
    return !this.refuse();
  }
  stopped(): void {
    this.log.push("stopped");
  }
  ramEnd(): void {
    this.log.push("ramEnd");
    // the section was written as a part; a section of the end differs only in its first byte and in the end mark
    this.partEnd();
    const last = this.pieces.at(-1)!;
    last[0] = 3;
  }
  device(start: number, end: number): void {
    this.put(this.memory.slice(start, end));
  }
  end(): void {
    this.log.push("end");
    if (this.packagePieces.length > 0) this.put(encodePostcopyEnd(this.sectionId).subarray(-1));
  }
  ping(value: number): void {
    this.discards.flush();
    this.log.push(`ping ${value}`);
    this.put(encodePing(value));
  }
  advised(): void {
    this.log.push("advised");
    this.put(encodeAdvise());
  }
  discard(firstPage: number, pageCount: number): void {
    this.log.push(`discard ${firstPage}+${pageCount}`);
    this.discards.add(firstPage, pageCount);
  }
  packageStart(byteLength: number): void {
    this.discards.flush();
    this.log.push(`package ${byteLength}`);
    this.pagesBefore = this.pages.length;
    this.put(encodePackageHead(byteLength));
  }
  packageBytes(start: number, end: number): void {
    this.packagePieces.push(Buffer.from(this.memory.slice(start, end)));
    this.put(this.memory.slice(start, end));
  }
  packageEnd(): this {
    this.log.push("packageEnd");
    return this;
  }
  private section(): void {
    if (!this.open) this.writer.partStart(this.sectionId);
    this.open = true;
  }
  private put(bytes: Uint8Array): void {
    this.pieces.push(Buffer.from(bytes));
  }
}

export interface RewrittenPostcopy {
  /** The stream, written again. */
  readonly bytes: Buffer;
  readonly package: Buffer;
  /** How many of the pages came before the package. */
  readonly pagesBefore: number;
  readonly pages: PostcopyRewriter["pages"];
  readonly log: readonly string[];
  /** How many bytes were not consumed. */
  readonly left: number;
}

/**
 * Reads a stream and writes it again.
 * @param cuts where the pieces end in which the stream comes
 * @param refuse returns true if the sink is to refuse the next page or section
 */
export function rewritePostcopy(
  stream: Buffer,
  cuts: readonly number[] = [],
  { refuse = () => false, limits = {} }: { refuse?: () => boolean; limits?: StreamLimits } = {},
): RewrittenPostcopy {
  const memory = new Uint8Array(2 * WINDOW + stream.length);
  const sink = new PostcopyRewriter(memory, refuse);
  const left = feedPieces(memory, new StreamReader(memory, sink, limits, sink), stream, cuts);
  const { log, pages, pagesBefore } = sink;
  return {
    bytes: Buffer.concat(sink.pieces),
    package: Buffer.concat(sink.packagePieces),
    pages,
    pagesBefore,
    log,
    left,
  };
}
