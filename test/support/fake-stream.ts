/** Makes a precopy stream from a seed, as QEMU would write it, for tests of the reader. All integers are big-endian. */
import { seeded } from "./fake-guest.ts";

export interface FakeStreamOptions {
  readonly seed: number;
  readonly blocks?: Blocks;
  readonly sections?: number;
  readonly recordsPerSection?: number;
  readonly commands?: boolean;
  readonly deviceBytes?: number;
  readonly description?: string;
}

const SECTION = 2;

/** Builds the bytes of a stream, piece by piece. */
export class StreamBytes {
  private readonly pieces: Buffer[] = [];

  u8(...values: number[]): this {
    return this.bytes(Buffer.from(values));
  }
  be16(value: number): this {
    const piece = Buffer.alloc(2);
    piece.writeUInt16BE(value);
    return this.bytes(piece);
  }
  be32(value: number): this {
    const piece = Buffer.alloc(4);
    piece.writeUInt32BE(value);
    return this.bytes(piece);
  }
  be64(value: number): this {
    const piece = Buffer.alloc(8);
    piece.writeBigUInt64BE(BigInt(value));
    return this.bytes(piece);
  }
  /** Adds a text with its length in one byte before it. */
  name(text: string): this {
    return this.u8(text.length).bytes(Buffer.from(text));
  }
  bytes(piece: Uint8Array): this {
    this.pieces.push(Buffer.from(piece));
    return this;
  }
  done(): Buffer {
    return Buffer.concat(this.pieces);
  }
}

/** The beginning of a stream: header and configuration. */
export const streamHead = (machine = "pc"): StreamBytes =>
  new StreamBytes().be32(0x5145564d).be32(3).u8(7).be32(machine.length).bytes(Buffer.from(machine));

/** The beginning of a stream: header, configuration, and the start of RAM in section 2, with `pc.ram` of two pages. */
export const twoPageSetup = (): StreamBytes =>
  streamHead()
    .u8(1)
    .be32(SECTION)
    .name("ram")
    .be32(0)
    .be32(4)
    .be64(8192 + 4)
    .name("pc.ram")
    .be64(8192)
    .be64(0x10)
    .u8(0x7e)
    .be32(SECTION);

export interface FakeStream {
  /** The whole stream. */
  readonly bytes: Buffer;
  /** The header, the configuration and the start of RAM, without the commands. */
  readonly prologue: Buffer;
  readonly devices: Buffer;
  /** The pages in order, each with its number and its content, which is undefined for a zero page. */
  readonly pages: readonly { readonly page: number; readonly content: Buffer | undefined }[];
}

type Blocks = readonly (readonly [name: string, pages: number])[];

/** Makes a generator of whole numbers below a limit, which the seed decides. */
export function picker(seed: number): (limit: number) => number {
  const random = seeded(seed);
  return (limit) => Math.floor(random() * limit);
}

/**
 * Makes RAM sections with random records. As in QEMU's streams, a record names its block only when the record before it
 * is of another block.
 */
export class SectionMaker {
  readonly pages: { page: number; content: Buffer | undefined }[] = [];
  private readonly blocks: Blocks;
  private readonly pick: (limit: number) => number;
  private lastBlock = -1;

  constructor(blocks: Blocks, pick: (limit: number) => number) {
    this.blocks = blocks;
    this.pick = pick;
  }

  section(type: number, records: number): Buffer {
    const { blocks, pick } = this;
    const out = new StreamBytes().u8(type).be32(SECTION);
    for (let i = 0; i < records; i++) {
      const index = pick(blocks.length);
      const [name, count] = blocks[index]!;
      const page = pick(count);
      const zero = pick(4) === 0;
      const first = blocks.slice(0, index).reduce((sum, [, before]) => sum + before, 0);
      out.be64(page * 4096 + (zero ? 2 : 8) + (index === this.lastBlock ? 0x20 : 0));
      if (index !== this.lastBlock) out.name(name);
      this.lastBlock = index;
      const content = Buffer.alloc(4096, pick(255) + 1);
      if (zero) out.u8(0);
      else out.bytes(content);
      this.pages.push({ page: first + page, content: zero ? undefined : content });
    }
    return out.be64(0x10).u8(0x7e).be32(SECTION).done();
  }
}

/** Makes the START section of RAM with these blocks. */
export function ramStart(blocks: Blocks): Buffer {
  const setup = new StreamBytes().u8(1).be32(SECTION).name("ram").be32(0).be32(4);
  setup.be64(blocks.reduce((sum, [, pages]) => sum + pages * 4096, 0) + 4);
  for (const [name, pages] of blocks) setup.name(name).be64(pages * 4096);
  return setup.be64(0x10).u8(0x7e).be32(SECTION).done();
}

export function fakeStream(options: FakeStreamOptions): FakeStream {
  const { seed, sections = 3, recordsPerSection = 8, commands = true, deviceBytes = 300 } = options;
  const blocks = options.blocks ?? [
    ["pc.ram", 40],
    ["pc.bios", 4],
    ["/rom@etc/acpi/tables", 2],
  ];
  const description = options.description ?? '{"configuration": {"vmsd_name": "configuration"}, "page_size": 4096}';
  const pick = picker(seed);
  const machine = streamHead("pc-q35-8.1").done();
  const setup = ramStart(blocks);
  const prologue = Buffer.concat([machine, setup]);
  const opening = commands
    ? new StreamBytes().u8(8).be16(1).be16(0).u8(8).be16(2).be16(4).be32(1).done()
    : Buffer.alloc(0);

  const maker = new SectionMaker(blocks, pick);
  const { pages } = maker;
  const section = (type: number, records: number): Buffer => maker.section(type, records);
  const parts = Buffer.concat(Array.from({ length: sections }, () => section(2, recordsPerSection)));
  const switchover = commands ? new StreamBytes().u8(8).be16(11).be16(0).done() : Buffer.alloc(0);
  const last = section(3, recordsPerSection);
  const state = Buffer.from(Array.from({ length: deviceBytes }, () => pick(256)));
  const devices = new StreamBytes()
    .bytes(state)
    .u8(0, 6)
    .be32(description.length)
    .bytes(Buffer.from(description))
    .done();
  const bytes = Buffer.concat([machine, opening, setup, parts, switchover, last, devices]);
  return { bytes, prologue, devices, pages };
}
