/**
 * Makes the stream of a post-copy that is resumed after a break, as the source's QEMU would write it, and records what
 * the reader tells of it.
 */
import type { PlacedBlock } from "../../shared/qemu/stream/ram-blocks.ts";
import { ResumedReader, type ResumedSink } from "../../shared/qemu/stream/resumed-reader.ts";
import { picker, SectionMaker, StreamBytes } from "./fake-stream.ts";
import { feedPieces } from "./rewrite-stream.ts";

const BLOCKS = [
  ["pc.ram", 40],
  ["pc.bios", 4],
  ["/rom@etc/acpi/tables", 2],
] as const;

/** The set-up that the broken stream has told. */
export const RESUMED_SETUP = {
  ramSectionId: 2,
  blocks: BLOCKS.map(([name, pages]) => ({ name, byteLength: pages * 4096, pageSize: 4096 })),
};

/** The part of a source's record that this post-copy adds. */
export const RESUMED_POSTCOPY = { ...RESUMED_SETUP, frameBytes: 65_536, creditWindowBytes: 1 << 20, codecs: [] };

export const recvBitmap = (name: string): Buffer =>
  new StreamBytes()
    .u8(8)
    .be16(10)
    .be16(1 + name.length)
    .name(name)
    .done();
export const resume = (): Buffer => new StreamBytes().u8(8).be16(9).be16(0).done();
/** The commands that begin such a stream: RECV_BITMAP for each block, and RESUME. */
export const asking = (): Buffer => Buffer.concat([...BLOCKS.map(([name]) => recvBitmap(name)), resume()]);

export interface FakeResumed {
  readonly bytes: Buffer;
  readonly pages: SectionMaker["pages"];
}

export function fakeResumed(seed: number): FakeResumed {
  const maker = new SectionMaker(BLOCKS, picker(seed));
  const sections = [maker.section(2, 4), maker.section(2, 1), maker.section(2, 3), maker.section(3, 2)];
  return { bytes: Buffer.concat([asking(), ...sections, Buffer.of(0)]), pages: maker.pages };
}

class ResumedLog implements ResumedSink {
  readonly log: string[] = [];
  readonly pages: { page: number; content: Buffer | undefined }[] = [];
  private readonly memory: Uint8Array;
  private readonly refuse: () => boolean;

  constructor(memory: Uint8Array, refuse: () => boolean) {
    this.memory = memory;
    this.refuse = refuse;
  }
  ping(value: number): void {
    this.log.push(`ping ${value}`);
  }
  bitmapWanted({ name, firstPage }: PlacedBlock): void {
    this.log.push(`bitmap ${name} from ${firstPage}`);
  }
  resumed(): void {
    this.log.push("resumed");
  }
  page(page: number, at: number): boolean {
    if (this.refuse()) return false;
    this.pages.push({ page, content: Buffer.from(this.memory.slice(at, at + 4096)) });
    return true;
  }
  zeroPage(page: number): boolean {
    if (this.refuse()) return false;
    this.pages.push({ page, content: undefined });
    return true;
  }
  partEnd(): boolean {
    this.log.push("part");
    return !this.refuse();
  }
  ramEnd(): void {
    this.log.push("ramEnd");
  }
  end(): void {
    this.log.push("end");
  }
}

export interface ToldResumed {
  readonly log: readonly string[];
  readonly pages: ResumedLog["pages"];
  /** How many bytes were not consumed. */
  readonly left: number;
}

/**
 * Reads such a stream.
 * @param cuts where the pieces end in which the stream comes
 * @param refuse returns true if the sink is to refuse the next page or section
 */
export function readResumed(
  stream: Buffer,
  cuts: readonly number[] = [],
  refuse: () => boolean = () => false,
): ToldResumed {
  const memory = new Uint8Array(65536 + stream.length);
  const sink = new ResumedLog(memory, refuse);
  const left = feedPieces(memory, new ResumedReader(memory, RESUMED_SETUP, sink), stream, cuts);
  return { log: sink.log, pages: sink.pages, left };
}
