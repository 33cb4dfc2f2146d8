/**
 * The body of a frame of pages: a batch of page records. All headers come ahead of all bodies, so that zstd finds like
 * beside like.
 *
 *     u32 records | u32 header bytes | header … | body …            (u32 little endian)
 *     header  varint( zigzag(page - expected) * 4 + kind ) [ varint(argument) ]
 *
 *     kind 0  zero run   argument: pages in the run        no body
 *     kind 1  full       no argument                       4096 bytes
 *     kind 2  delta      argument: bytes of XBZRLE         those bytes
 *
 * `expected` is the page after the last page of the record before (0 at first), so the header of a neighbour takes one
 * byte. Page numbers are those of MemoryLayout (shared/page/geometry.ts), and addresses are places in the memory of the
 * page kernels (shared/page/kernels.ts). The sequence, length and checksum of a frame are not checked here but in
 * agent-destination/replay/.
 */
import { MigrationFault } from "../fault.ts";
import type { PageKernels } from "../page/kernels.ts";
import { type Address, address, PAGE_SIZE } from "../units.ts";

/** The kinds of records. Their numbers are written out because they are on the wire. */
const ZERO_RUN = 0;
const FULL = 1;
const DELTA = 2;

const FRAME_PREFIX_BYTES = 8;
/**
 * The longest header of a record: 31 bits of zigzag and kind take 5 bytes, and an argument of at most 28 bits takes 4.
 */
const HEADER_BYTES_MAX = 9;
/** The most records in a frame. It bounds the room for headers and the work that one frame makes. */
const MAX_RECORDS = 4096;
const HEADERS_BYTES_MAX = MAX_RECORDS * HEADER_BYTES_MAX;

/** How many bytes of memory a frame needs while it is built, for bodies of up to `bodyBytes`. */
export const frameBufferBytes = (bodyBytes: number): number =>
  FRAME_PREFIX_BYTES + HEADERS_BYTES_MAX + bodyBytes + PAGE_SIZE;

/** Builds one frame after another, each at the address that the caller names. */
export class PageFrameWriter {
  private readonly memory: Uint8Array;
  private readonly kernels: PageKernels;
  /** Where the frame begins that finish() has made. */
  frameAt: Address = address(0);
  private headersStart = 0;
  private header = 0;
  private bodyStart = 0;
  private bodyEnd = 0;
  private bodyLimit = 0;
  private expected = 0;
  records = 0;

  constructor(kernels: PageKernels) {
    this.kernels = kernels;
    this.memory = kernels.memory;
  }

  /**
   * Starts a frame in the frameBufferBytes(bodyBytes) bytes from `at` on. The frame does not begin at `at` itself:
   * finish() moves the headers up to the bodies, so the length of the headers decides where the frame begins
   * (`frameAt`).
   */
  begin(at: Address, bodyBytes: number): void {
    this.headersStart = at + FRAME_PREFIX_BYTES;
    this.header = this.headersStart;
    this.bodyStart = this.header + HEADERS_BYTES_MAX;
    this.bodyEnd = this.bodyStart;
    this.bodyLimit = this.bodyStart + bodyBytes;
    this.expected = 0;
    this.records = 0;
  }

  /** True when there is room for one more record of any kind. */
  get hasRoom(): boolean {
    return this.records < MAX_RECORDS && this.bodyEnd + PAGE_SIZE <= this.bodyLimit;
  }

  get isEmpty(): boolean {
    return this.records === 0;
  }

  zeroRun(page: number, pages: number): void {
    this.head(page, ZERO_RUN);
    this.varint(pages);
    this.expected = page + pages;
  }

  full(page: number, from: Address): void {
    this.head(page, FULL);
    this.kernels.copy(address(this.bodyEnd), from, PAGE_SIZE);
    this.bodyEnd += PAGE_SIZE;
    this.expected = page + 1;
  }

  /** Where the caller writes the XBZRLE of the next delta record: at most 4096 bytes. */
  get deltaPlace(): Address {
    return address(this.bodyEnd);
  }

  /** Adds a delta record with the `length` bytes that were written to deltaPlace. */
  delta(page: number, length: number): void {
    this.head(page, DELTA);
    this.varint(length);
    this.bodyEnd += length;
    this.expected = page + 1;
  }

  /** Closes the frame, which then begins at `frameAt`. @returns its length in bytes */
  finish(): number {
    const headers = this.header - this.headersStart;
    // the headers are moved up to the bodies, so that zstd and the checksum get both as one piece
    const at = this.bodyStart - headers;
    this.kernels.copy(address(at), address(this.headersStart), headers);
    this.frameAt = address(at - FRAME_PREFIX_BYTES);
    this.u32(this.frameAt, this.records);
    this.u32(this.frameAt + 4, headers);
    return this.bodyEnd - this.frameAt;
  }

  private head(page: number, kind: number): void {
    const step = page - this.expected;
    const zigzag = step < 0 ? -step * 2 - 1 : step * 2;
    this.records++;
    this.varint(zigzag * 4 + kind);
  }

  private varint(value: number): void {
    let rest = value >>> 0;
    while (rest > 127) {
      this.memory[this.header++] = (rest & 127) | 128;
      rest >>>= 7;
    }
    this.memory[this.header++] = rest;
  }

  private u32(at: number, value: number): void {
    this.memory[at] = value;
    this.memory[at + 1] = value >>> 8;
    this.memory[at + 2] = value >>> 16;
    this.memory[at + 3] = value >>> 24;
  }
}

/** Takes the records of a frame. `at` is the address of a page's content, or of the XBZRLE of a delta. */
export interface RecordSink {
  /**
   * True while the sink has room for a full page. It is asked before every page, also before each page of a zero run.
   */
  readonly hasRoom: boolean;
  zeroPage(page: number): void;
  page(page: number, at: number): void;
  delta(page: number, at: number, length: number): void;
}

/** Reads frames that a peer sent. Everything in a frame is checked before it is used. */
export class PageFrameReader {
  private readonly memory: Uint8Array;
  private readonly kernels: PageKernels;
  private readonly pageCount: number;
  private header = 0;
  private headerEnd = 0;
  private body = 0;
  private end = 0;
  private records = 0;
  private expected = 0;
  private runPage = 0;
  private runLeft = 0;
  /**
   * How many zero pages the frame may still name, at first as many as the guest has pages. Without this bound a frame
   * of 40 KiB could make hours of work.
   */
  private zeroPagesLeft = 0;
  /**
   * False when deltas are refused: the contract does not have the codec xbzrle, or the package of post-copy has come,
   * after which QEMU takes no XBZRLE.
   */
  private readonly allowDelta: boolean;

  constructor(kernels: PageKernels, pageCount: number, allowDelta: boolean) {
    this.kernels = kernels;
    this.memory = kernels.memory;
    this.pageCount = pageCount;
    this.allowDelta = allowDelta;
  }

  /** Begins with the frame body of `length` bytes at `at`. @throws MigrationFault `peer-invalid` */
  open(at: Address, length: number): void {
    if (length < FRAME_PREFIX_BYTES) throw invalid(`a frame body of ${length} bytes has no room for its prefix`);
    this.records = this.u32(at);
    const headers = this.u32(at + 4);
    if (this.records > MAX_RECORDS) throw invalid(`${this.records} records in a frame; at most ${MAX_RECORDS}`);
    if (headers > length - FRAME_PREFIX_BYTES)
      throw invalid(`${headers} bytes of record headers in a frame body of ${length} bytes`);
    this.header = at + FRAME_PREFIX_BYTES;
    this.headerEnd = this.header + headers;
    this.body = this.headerEnd;
    this.end = at + length;
    this.expected = 0;
    this.runLeft = 0;
    this.zeroPagesLeft = this.pageCount;
  }

  /**
   * Gives records to the sink while it has room.
   * @returns true when the frame is finished; otherwise drain() is called again once the sink has room
   * @throws MigrationFault `peer-invalid`
   */
  drain(sink: RecordSink): boolean {
    while (sink.hasRoom) {
      if (this.runLeft > 0) {
        sink.zeroPage(this.runPage++);
        this.runLeft--;
      } else if (this.records > 0) {
        this.record(sink);
      } else {
        this.checkEnd();
        return true;
      }
    }
    return false;
  }

  private record(sink: RecordSink): void {
    this.records--;
    const head = this.varint();
    const kind = head & 3;
    const zigzag = head >>> 2;
    const step = (zigzag & 1) === 1 ? -(zigzag + 1) / 2 : zigzag / 2;
    const page = this.expected + step;
    if (page < 0 || page >= this.pageCount) throw invalid(`page ${page} of ${this.pageCount}`);
    this.expected = page + 1;
    if (kind === FULL) {
      sink.page(page, this.take(PAGE_SIZE));
    } else if (kind === DELTA) {
      const length = this.varint();
      if (!this.allowDelta) throw invalid("a delta, where none is allowed");
      const at = this.take(length);
      if (length > PAGE_SIZE || !this.kernels.deltaIsValid(address(at), length))
        throw invalid(`a delta of ${length} bytes for page ${page} that is not XBZRLE`);
      sink.delta(page, at, length);
    } else if (kind === ZERO_RUN) {
      const pages = this.varint();
      if (pages === 0 || pages > this.pageCount - page)
        throw invalid(`a run of ${pages} zero pages from page ${page} of ${this.pageCount}`);
      this.zeroPagesLeft -= pages;
      if (this.zeroPagesLeft < 0) throw invalid(`more zero pages than the ${this.pageCount} that there are`);
      this.runPage = page;
      this.runLeft = pages;
      this.expected = page + pages;
    } else {
      throw invalid(`a record of kind ${kind}`);
    }
  }

  private checkEnd(): void {
    if (this.header !== this.headerEnd) throw invalid(`${this.headerEnd - this.header} spare bytes of record headers`);
    if (this.body !== this.end) throw invalid(`${this.end - this.body} spare bytes after the last record`);
  }

  private take(length: number): number {
    const at = this.body;
    if (length > this.end - at) throw invalid(`a record of ${length} bytes where ${this.end - at} are left`);
    this.body = at + length;
    return at;
  }

  private varint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      if (this.header === this.headerEnd) throw invalid("a record header is cut short");
      const byte = this.memory[this.header++]!;
      if (shift === 28 && byte > 15) throw invalid("a number beyond 32 bits in a record header");
      value |= (byte & 127) << shift;
      if (byte < 128) return value >>> 0;
    }
    throw invalid("a number beyond 32 bits in a record header");
  }

  private u32(at: number): number {
    const m = this.memory;
    return (m[at]! | (m[at + 1]! << 8) | (m[at + 2]! << 16) | (m[at + 3]! << 24)) >>> 0;
  }
}

const invalid = (what: string): MigrationFault =>
  new MigrationFault("peer-invalid", `The source sent a frame of pages with ${what}`, { role: "source" });
