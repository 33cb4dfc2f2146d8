/**
 * The source QEMU of a simulated guest, for the warm-up. It writes the header of a stream, passes of precopy, and
 * post-copy, and takes requests on the return path. It has CONTENTS different page contents; each page of the guest
 * that is not zero has one of them.
 */
import type { Socket } from "node:net";
import { PageSet } from "../../shared/page/page-set.ts";
import { changePages, simulatedBlocks, simulatePages } from "../../shared/page/simulated-pages.ts";
import type { RamBlock } from "../../shared/protocol/messages.ts";
import { ReturnPathReader } from "../../shared/qemu/return-path/return-path-reader.ts";
import {
  DiscardEncoder,
  encodeAdvise,
  encodePackageHead,
  encodePostcopyEnd,
} from "../../shared/qemu/stream/command-encoder.ts";
import { encodeStreamStart, StreamWriter } from "../../shared/qemu/stream/stream-writer.ts";
import { PAGE_SIZE } from "../../shared/units.ts";

const RAM_SECTION = 2;
const CONTENTS = 16;
const SECTION_PAGES = 256;
/** Where in `memory` the window begins into which sections are written: right after the contents. */
const WINDOW_AT = CONTENTS * PAGE_SIZE;
/** The window has room for the pages of a section, the header and name of each, and the section's head and end. */
const WINDOW_BYTES = SECTION_PAGES * (PAGE_SIZE + 16) + 512;
const PACKAGE_BYTES = 30_000;

const ignore = (): void => undefined;

export class SimulatedQemu {
  readonly blocks: readonly RamBlock[];
  private readonly pageCount: number;
  private readonly socket: Socket;
  private readonly memory = new Uint8Array(WINDOW_AT + WINDOW_BYTES);
  private readonly writer: StreamWriter;
  private readonly missing: PageSet;
  /** The pages that the agent has asked for on the return path, in the order of its requests. */
  private readonly wanted: number[] = [];
  private version = 0;

  /** @param socket connected to the agent's intake */
  constructor(socket: Socket, pageCount: number) {
    this.socket = socket;
    this.pageCount = pageCount;
    this.blocks = simulatedBlocks(pageCount);
    this.missing = new PageSet(pageCount);
    this.writer = new StreamWriter(this.memory, (to, from, length) => this.memory.copyWithin(to, from, from + length));
    this.writer.layout(this.blocks);
    simulatePages(this.memory, 0, CONTENTS);
    const returnPath = new ReturnPathReader(this.blocks, {
      requestPages: (firstPage, count) => {
        for (let page = firstPage; page < firstPage + count; page++) this.wanted.push(page);
      },
      pong: ignore,
      shut: ignore,
      switchoverAck: ignore,
      resumeAck: ignore,
      receivedPages: ignore,
    });
    socket.on("data", (bytes) => returnPath.push(bytes));
  }

  start(): Promise<void> {
    return this.write(Buffer.concat([...encodeStreamStart("rehearsal", this.blocks, RAM_SECTION, encodeAdvise())]));
  }

  /** Writes every page. Pages for which `isZero` is true are zero pages. */
  async firstPass(isZero: (page: number) => boolean): Promise<void> {
    for (let page = 0; page < this.pageCount; page += SECTION_PAGES) await this.section(page, SECTION_PAGES, isZero);
  }

  /**
   * Changes a few words of every page content, and writes `pageCount` pages from `firstPage` on with the changed
   * contents.
   */
  async pass(firstPage: number, pageCount: number): Promise<void> {
    this.change();
    const end = firstPage + pageCount;
    for (let page = firstPage; page < end; page += SECTION_PAGES)
      await this.section(page, Math.min(SECTION_PAGES, end - page), () => false);
  }

  /**
   * Stops the simulated guest: writes the discards of `pageCount` pages from `firstPage` on, which are then missing at
   * the destination, and writes the package.
   */
  async stop(firstPage: number, pageCount: number): Promise<void> {
    this.change();
    this.missing.addRange(firstPage, pageCount);
    const commands: Uint8Array[] = [];
    const discards = new DiscardEncoder(this.blocks, (command) => commands.push(command.slice()));
    discards.add(firstPage, pageCount);
    discards.flush();
    await this.write(Buffer.concat([...commands, encodePackageHead(PACKAGE_BYTES), new Uint8Array(PACKAGE_BYTES)]));
  }

  /**
   * Writes the pages that are still missing at the destination, first those that the agent has asked for, and then the
   * end of the stream.
   */
  async lastPages(): Promise<void> {
    while (this.missing.size > 0) {
      this.begin();
      for (let count = 0; count < SECTION_PAGES && this.missing.size > 0; count++) {
        const asked = this.wanted.shift();
        const page = asked !== undefined && this.missing.has(asked) ? asked : this.missing.next(0);
        this.missing.remove(page);
        this.writer.page(page, (page % CONTENTS) * PAGE_SIZE);
      }
      await this.end();
    }
    await this.write(encodePostcopyEnd(RAM_SECTION));
  }

  private change(): void {
    changePages(this.memory, 0, CONTENTS, ++this.version);
  }

  private async section(firstPage: number, pageCount: number, isZero: (page: number) => boolean): Promise<void> {
    this.begin();
    for (let page = firstPage; page < firstPage + pageCount; page++)
      if (isZero(page)) this.writer.zeroPage(page);
      else this.writer.page(page, (page % CONTENTS) * PAGE_SIZE);
    await this.end();
  }

  private begin(): void {
    this.writer.begin(WINDOW_AT, WINDOW_AT + WINDOW_BYTES);
    this.writer.partStart(RAM_SECTION);
  }

  private end(): Promise<void> {
    this.writer.partEnd(RAM_SECTION);
    return this.write(this.memory.slice(WINDOW_AT, this.writer.position));
  }

  private write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => this.socket.write(bytes, (error) => (error ? reject(error) : resolve())));
  }
}
