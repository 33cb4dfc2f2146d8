/**
 * Moves a guest from one QEMU to another by post-copy through the project's readers and writers, in one process and
 * without agents. Each page is sent in a section of its own. A test may hold back all pages that the destination has
 * not asked for.
 */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { PageSet } from "../../shared/page/page-set.ts";
import { encodePong, encodeShut, PageRequests } from "../../shared/qemu/return-path/return-path.ts";
import { ReturnPathReader, type ReturnPathSink } from "../../shared/qemu/return-path/return-path-reader.ts";
import {
  DiscardEncoder,
  encodeAdvise,
  encodeOpenReturnPath,
  encodePackageHead,
  encodePostcopyEnd,
} from "../../shared/qemu/stream/command-encoder.ts";
import {
  type PostcopySink,
  type RamSetup,
  StreamReader,
  type StreamSink,
} from "../../shared/qemu/stream/stream-reader.ts";
import { encodeRamEnd, StreamWriter } from "../../shared/qemu/stream/stream-writer.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { BiosGuest } from "./bios-guest.ts";

const WINDOW = 4 << 20;
const SECTION_BYTES_MAX = 8192;

export interface RelayOptions {
  /** True if pages that come after the package and were not asked for are held until release(). @default false */
  readonly hold?: boolean;
  /**
   * With `hold`: about how many pages are read after the package. The others stay in the source's QEMU.
   * @default all
   */
  readonly readAhead?: number;
}

export class PostcopyRelay implements StreamSink, PostcopySink, ReturnPathSink {
  /** What came from both QEMUs, in order: pings and pongs, the package, the end. */
  readonly log: string[] = [];
  readonly counts = { before: 0, after: 0, discarded: 0, requests: 0, twice: 0 };
  readonly source: Socket;
  destination: Socket;
  /** The set-up that the stream has told; undefined before layout(). */
  setup: RamSetup | undefined;
  /**
   * The pages that the destination's QEMU has: all pages without the discarded ones, and those that were sent since.
   */
  present = new PageSet(0);
  private readonly hold: boolean;
  private readAhead: number;
  private readonly memory = new Uint8Array(WINDOW + SECTION_BYTES_MAX);
  private readonly reader = new StreamReader(this.memory, this, {}, this);
  private readonly writer = new StreamWriter(this.memory, (to, from, length) =>
    this.memory.copyWithin(to, from, from + length),
  );
  private tail = 0;
  private sectionId = 0;
  private discards = new DiscardEncoder([], () => undefined);
  private requests = new PageRequests([]);
  private returnPath: ReturnPathReader | undefined;
  /** The pages that the destination has asked for. */
  private wanted = new PageSet(0);
  /** The pages that were read and are held back, with their content, which is undefined for a zero page. */
  private readonly held = new Map<number, Buffer | undefined>();
  private packaged = false;
  private holding = false;
  private ended = false;

  constructor(
    source: Socket,
    destination: Socket,
    { hold = false, readAhead = Number.POSITIVE_INFINITY }: RelayOptions = {},
  ) {
    this.source = source;
    this.destination = destination;
    this.hold = hold;
    this.readAhead = readAhead;
    source.on("data", (chunk) => this.take(chunk));
    destination.on("data", (chunk) => this.returnPath?.push(chunk));
    // a test learns of a broken socket from QEMU's monitor
    source.on("error", () => undefined);
    destination.on("error", () => undefined);
  }

  /** Sends the pages that were held, and reads on. */
  release(): void {
    this.holding = false;
    this.readAhead = Number.POSITIVE_INFINITY;
    this.source.resume();
    for (const [page, content] of this.held) this.send(page, content);
    this.held.clear();
    this.finish();
  }

  /** Loses the pages that were read and not sent, as an agent that dies does. @returns how many pages were lost */
  lose(): number {
    const lost = this.held.size;
    this.held.clear();
    return lost;
  }

  /** Sends to another socket of the destination's QEMU from now on. */
  redirect(destination: Socket): void {
    this.destination = destination;
    this.writer.layout(this.setup?.blocks ?? []);
  }

  /** Sends a page that came by another way. */
  deliver(page: number, content: Buffer | undefined): void {
    this.send(page, content);
  }

  /** Ends post-copy: tells the destination's QEMU that every page was sent. */
  endPostcopy(): void {
    this.put(encodePostcopyEnd(this.sectionId));
  }

  // ── the source's stream ──

  prologue(start: number, end: number): void {
    this.put(this.memory.slice(start, end));
  }
  advised(): void {
    this.put(encodeOpenReturnPath());
    this.put(encodeAdvise());
  }
  layout(setup: RamSetup): void {
    const { ramSectionId, blocks } = setup;
    this.setup = setup;
    this.sectionId = ramSectionId;
    this.writer.layout(blocks);
    this.discards = new DiscardEncoder(blocks, (command) => this.put(command));
    this.requests = new PageRequests(blocks);
    this.returnPath = new ReturnPathReader(blocks, this);
    const pages = blocks.reduce((sum, { byteLength }) => sum + byteLength / PAGE_SIZE, 0);
    this.wanted = new PageSet(pages);
    this.present = new PageSet(pages);
    this.present.addRange(0, pages);
  }
  ping(value: number): void {
    this.log.push(`ping ${value}`);
    this.source.write(encodePong(value));
  }
  page(page: number, at: number): boolean {
    this.offer(page, Buffer.from(this.memory.slice(at, at + PAGE_SIZE)));
    return true;
  }
  zeroPage(page: number): boolean {
    this.offer(page, undefined);
    return true;
  }
  partEnd(): boolean {
    return true;
  }
  stopped(): void {
    this.log.push("stopped");
  }
  discard(firstPage: number, pageCount: number): void {
    this.counts.discarded += pageCount;
    this.present.removeRange(firstPage, pageCount);
    this.discards.add(firstPage, pageCount);
  }
  packageStart(byteLength: number): void {
    this.discards.flush();
    this.log.push("package");
    this.put(encodePackageHead(byteLength));
  }
  packageBytes(start: number, end: number): void {
    this.put(this.memory.slice(start, end));
  }
  packageEnd(): this {
    this.packaged = true;
    this.holding = this.hold;
    return this;
  }
  ramEnd(): void {
    this.log.push("ramEnd");
    this.ended = true;
    if (this.packaged) this.finish();
    else this.put(encodeRamEnd(this.sectionId));
  }
  device(start: number, end: number): void {
    this.put(this.memory.slice(start, end));
  }
  end(): void {
    this.log.push("end");
  }

  // ── the destination's return path ──

  requestPages(firstPage: number, pageCount: number): void {
    this.counts.requests++;
    this.wanted.addRange(firstPage, pageCount);
    for (let page = firstPage; page < firstPage + pageCount; page++) {
      if (!this.held.has(page)) continue;
      this.send(page, this.held.get(page));
      this.held.delete(page);
    }
    this.requests.add(firstPage, pageCount);
    this.source.write(this.requests.take());
    this.finish();
  }
  pong(value: number): void {
    this.log.push(`pong ${value}`);
    this.source.write(encodePong(value));
  }
  shut(error: number): void {
    this.log.push(`shut ${error}`);
    this.source.write(encodeShut(error));
  }
  switchoverAck(): void {
    this.log.push("switchoverAck");
  }
  resumeAck(): void {
    this.log.push("resumeAck");
  }
  receivedPages(): void {
    this.log.push("receivedPages");
  }

  // ──

  private take(chunk: Buffer): void {
    this.memory.set(chunk, this.tail);
    const end = this.tail + chunk.length;
    const at = this.reader.consume(0, end);
    this.memory.copyWithin(0, at, end);
    this.tail = end - at;
  }

  private offer(page: number, content: Buffer | undefined): void {
    if (this.holding && !this.wanted.has(page)) this.held.set(page, content);
    else this.send(page, content);
    if (this.packaged && this.held.size + this.counts.after >= this.readAhead) this.source.pause();
  }

  private send(page: number, content: Buffer | undefined): void {
    if (this.packaged && !this.present.add(page)) this.counts.twice++;
    if (this.packaged) this.counts.after++;
    else this.counts.before++;
    const { writer } = this;
    writer.begin(WINDOW, this.memory.length);
    writer.partStart(this.sectionId);
    if (content === undefined) writer.zeroPage(page);
    else this.contentOf(page, content);
    writer.partEnd(this.sectionId);
    this.put(this.memory.slice(WINDOW, writer.position));
  }

  private contentOf(page: number, content: Buffer): void {
    const at = this.memory.length - PAGE_SIZE;
    this.memory.set(content, at);
    this.writer.page(page, at);
  }

  private finish(): void {
    if (this.ended && this.packaged && this.held.size === 0) {
      this.ended = false;
      this.endPostcopy();
    }
  }

  private put(bytes: Uint8Array): void {
    this.destination.write(Buffer.from(bytes));
  }
}

/**
 * Begins a migration that may go over to post-copy.
 * @param destination a guest that was started with `-incoming defer -S`
 */
export async function relayPostcopy(
  source: BiosGuest,
  destination: BiosGuest,
  options: RelayOptions = {},
): Promise<PostcopyRelay> {
  const capabilities = ["postcopy-ram", "events"].map((capability) => ({ capability, state: true }));
  await destination.qmp.execute("migrate-set-capabilities", { capabilities });
  const incoming = join(destination.folder, "incoming");
  await destination.qmp.execute("migrate-incoming", { uri: `unix:${incoming}` });
  const to = connect(incoming);
  await once(to, "connect");
  const outgoing = join(source.folder, "outgoing");
  const server = createServer();
  server.listen(outgoing);
  await once(server, "listening");
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  const held = ["return-path", "switchover-ack"].map((capability) => ({ capability, state: true }));
  await source.qmp.execute("migrate-set-capabilities", { capabilities: [...capabilities, ...held] });
  await source.qmp.execute("migrate", { uri: `unix:${outgoing}` });
  const from = await accepted;
  server.close();
  return new PostcopyRelay(from, to, options);
}
