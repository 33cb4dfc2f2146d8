/** Reads a precopy stream through a window, as an agent does, and writes again what was read. */
import { StreamReader, type StreamSink } from "../../shared/qemu/stream/stream-reader.ts";
import { StreamWriter } from "../../shared/qemu/stream/stream-writer.ts";

const WINDOW = 65536;
const FEED_MAX = 16384;

export interface RewrittenStream {
  /** The stream, written again without its commands. */
  readonly bytes: Buffer;
  readonly prologue: Buffer;
  readonly devices: Buffer;
  /** The pages in order, each with its number and its content, which is undefined for a zero page. */
  readonly pages: readonly { readonly page: number; readonly content: Buffer | undefined }[];
  readonly log: readonly string[];
  /** How many bytes were not consumed. */
  readonly left: number;
}

class Rewriter implements StreamSink {
  readonly prologueBytes: Buffer[] = [];
  readonly deviceBytes: Buffer[] = [];
  readonly pages: { page: number; content: Buffer | undefined }[] = [];
  readonly log: string[] = [];
  readonly writer: StreamWriter;
  private readonly memory: Uint8Array;
  private readonly refuse: () => boolean;
  private section = 0;
  private open = false;
  private last = false;

  constructor(memory: Uint8Array, refuse: () => boolean) {
    this.memory = memory;
    this.refuse = refuse;
    this.writer = new StreamWriter(memory, (to, from, length) => memory.copyWithin(to, from, from + length));
    this.writer.begin(WINDOW, memory.length);
  }
  prologue(start: number, end: number): void {
    this.prologueBytes.push(this.copy(start, end));
  }
  layout(setup: Parameters<StreamSink["layout"]>[0]): void {
    this.section = setup.ramSectionId;
    this.writer.layout(setup.blocks);
    this.log.push(`layout ${setup.machineType}`);
  }
  page(page: number, at: number): boolean {
    if (this.refuse()) return false;
    this.begin();
    this.writer.page(page, at);
    this.pages.push({ page, content: this.copy(at, at + 4096) });
    return true;
  }
  zeroPage(page: number): boolean {
    if (this.refuse()) return false;
    this.begin();
    this.writer.zeroPage(page);
    this.pages.push({ page, content: undefined });
    return true;
  }
  partEnd(): boolean {
    this.finish();
    return !this.refuse();
  }
  stopped(): void {
    this.last = true;
    this.log.push("stopped");
  }
  ramEnd(): void {
    this.finish();
    this.log.push("ramEnd");
  }
  device(start: number, end: number): void {
    this.deviceBytes.push(this.copy(start, end));
  }
  end(): void {
    this.log.push("end");
  }
  private begin(): void {
    if (this.open) return;
    if (this.last) this.writer.endStart(this.section);
    else this.writer.partStart(this.section);
    this.open = true;
  }
  private finish(): void {
    this.begin();
    this.writer.partEnd(this.section);
    this.open = false;
  }
  private copy(start: number, end: number): Buffer {
    return Buffer.from(this.memory.slice(start, end));
  }
}

/**
 * Reads a stream and writes it again.
 * @param cuts where the pieces end in which the stream comes
 * @param refuse returns true if the sink is to refuse the next page or section
 */
export function rewriteStream(
  stream: Buffer,
  cuts: readonly number[] = [],
  refuse: () => boolean = () => false,
): RewrittenStream {
  const memory = new Uint8Array(WINDOW + stream.length + 65536);
  const sink = new Rewriter(memory, refuse);
  const left = feedPieces(memory, new StreamReader(memory, sink), stream, cuts);
  const prologue = Buffer.concat(sink.prologueBytes);
  const devices = Buffer.concat(sink.deviceBytes);
  const sections = Buffer.from(memory.slice(WINDOW, sink.writer.position));
  const bytes = Buffer.concat([prologue, sections, devices]);
  return { bytes, prologue, devices, pages: sink.pages, log: sink.log, left };
}

/**
 * Gives a stream to a reader in pieces that end at `cuts`, at the start of the reader's memory.
 * @returns how many bytes were not consumed
 */
export function feedPieces(
  memory: Uint8Array,
  reader: Pick<StreamReader, "consume" | "stopped">,
  stream: Buffer,
  cuts: readonly number[] = [],
): number {
  let head = 0;
  let tail = 0;
  const session = (piece: Buffer): void => {
    // the bytes that are left are moved to the start each time, as the owner of the memory may do
    memory.copyWithin(0, head, tail);
    tail -= head;
    head = 0;
    memory.set(piece, tail);
    tail += piece.length;
    do head = reader.consume(head, tail);
    while (reader.stopped);
  };
  let from = 0;
  for (const cut of [...cuts, stream.length]) {
    for (; cut - from > FEED_MAX; from += FEED_MAX) session(stream.subarray(from, from + FEED_MAX));
    session(stream.subarray(from, cut));
    from = cut;
  }
  return tail - head;
}
