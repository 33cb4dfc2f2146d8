/**
 * Resumes a post-copy after a break at each of its two ends, independently of each other, through the project's readers
 * and writers.
 */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { PageSet } from "../../shared/page/page-set.ts";
import { encodePong, encodeReceivedPages, encodeResumeAck } from "../../shared/qemu/return-path/return-path.ts";
import { ReturnPathReader, type ReturnPathSink } from "../../shared/qemu/return-path/return-path-reader.ts";
import { encodeRecvBitmap, encodeResume } from "../../shared/qemu/stream/command-encoder.ts";
import type { PlacedBlock } from "../../shared/qemu/stream/ram-blocks.ts";
import { ResumedReader, type ResumedSink } from "../../shared/qemu/stream/resumed-reader.ts";
import type { RamSetup } from "../../shared/qemu/stream/stream-reader.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { BiosGuest } from "./bios-guest.ts";
import { eventually } from "./bounded.ts";

const WINDOW = 4 << 20;
const WITHIN = { timeoutMs: 10_000 };

export interface Resumption {
  /** The pages that QEMU is told the destination has. */
  readonly received: PageSet;
  /** Takes a page. The content is undefined for a zero page. */
  readonly take: (page: number, content: Buffer | undefined) => void;
  /** Requests that are sent to QEMU together with RESUME_ACK. */
  readonly ask?: Uint8Array;
}

/** The source's QEMU on a new connection, which is told what the destination has. */
export class ResumedSource implements ResumedSink {
  /** What came, in order: the blocks whose bitmaps were asked for, resumed, ramEnd, end. */
  readonly log: string[] = [];
  /** How many pages came. */
  pages = 0;
  readonly socket: Socket;
  private readonly received: PageSet;
  private readonly take: Resumption["take"];
  private readonly ask: Uint8Array;
  private readonly memory = new Uint8Array(WINDOW);
  private readonly reader: ResumedReader;
  private tail = 0;

  constructor(socket: Socket, setup: RamSetup, { received, take, ask = new Uint8Array(0) }: Resumption) {
    this.socket = socket;
    this.received = received;
    this.take = take;
    this.ask = ask;
    this.reader = new ResumedReader(this.memory, setup, this);
    socket.on("data", (chunk) => this.read(chunk));
    socket.on("error", () => undefined);
  }

  bitmapWanted(block: PlacedBlock): void {
    this.log.push(block.name);
    const bits = this.received.bits(block.firstPage, block.byteLength / PAGE_SIZE);
    this.socket.write(encodeReceivedPages(block, bits));
  }
  resumed(): void {
    this.log.push("resumed");
    this.socket.write(Buffer.concat([encodeResumeAck(), this.ask]));
  }
  ping(value: number): void {
    this.socket.write(encodePong(value));
  }
  page(page: number, at: number): boolean {
    this.pages++;
    this.take(page, Buffer.from(this.memory.slice(at, at + PAGE_SIZE)));
    return true;
  }
  zeroPage(page: number): boolean {
    this.pages++;
    this.take(page, undefined);
    return true;
  }
  partEnd(): boolean {
    return true;
  }
  ramEnd(): void {
    this.log.push("ramEnd");
  }
  end(): void {
    this.log.push("end");
  }

  private read(chunk: Buffer): void {
    this.memory.set(chunk, this.tail);
    const end = this.tail + chunk.length;
    const at = this.reader.consume(0, end);
    this.memory.copyWithin(0, at, end);
    this.tail = end - at;
  }
}

/** Has the source's QEMU resume its migration, and connects to it. */
export async function resumeSource(source: BiosGuest, setup: RamSetup, how: Resumption): Promise<ResumedSource> {
  const path = join(source.folder, "resumed");
  const server = createServer();
  server.listen(path);
  await once(server, "listening");
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  await source.qmp.execute("migrate", { uri: `unix:${path}`, resume: true });
  const socket = await accepted;
  server.close();
  return new ResumedSource(socket, setup, how);
}

/** The destination's QEMU on a new connection, which tells what it has and asks for pages. */
export class ResumedDestination implements ReturnPathSink {
  readonly log: string[] = [];
  /** The pages that QEMU has. */
  readonly received: PageSet;
  /** The pages that QEMU has asked for. */
  readonly wanted: PageSet;
  readonly socket: Socket;
  /** For how many pages QEMU has told whether it has them. */
  told = 0;

  constructor(socket: Socket, setup: RamSetup) {
    const pages = setup.blocks.reduce((sum, { byteLength }) => sum + byteLength / PAGE_SIZE, 0);
    this.received = new PageSet(pages);
    this.wanted = new PageSet(pages);
    this.socket = socket;
    const reader = new ReturnPathReader(setup.blocks, this);
    socket.on("data", (chunk) => reader.push(chunk));
    socket.on("error", () => undefined);
  }

  requestPages(firstPage: number, pageCount: number): void {
    this.wanted.addRange(firstPage, pageCount);
  }
  receivedPages(firstPage: number, pageCount: number, bits: Uint8Array): void {
    this.received.setBits(firstPage, pageCount, bits);
    this.told += pageCount;
  }
  pong(value: number): void {
    this.log.push(`pong ${value}`);
  }
  shut(error: number): void {
    this.log.push(`shut ${error}`);
  }
  switchoverAck(): void {
    this.log.push("switchoverAck");
  }
  resumeAck(): void {
    this.log.push("resumeAck");
  }
}

/** Connects to the destination's QEMU again. When this returns, QEMU takes pages again, in sections as before. */
export async function resumeDestination(destination: BiosGuest, setup: RamSetup): Promise<ResumedDestination> {
  const path = join(destination.folder, "recovered");
  await destination.qmp.execute("migrate-recover", { uri: `unix:${path}` });
  const socket = connect(path);
  await once(socket, "connect");
  const resumed = new ResumedDestination(socket, setup);
  for (const { name } of setup.blocks) socket.write(encodeRecvBitmap(name));
  await eventually(() => resumed.told === resumed.received.pageCount || undefined, { ...WITHIN, what: "the bitmaps" });
  socket.write(encodeResume());
  await eventually(() => resumed.log.includes("resumeAck") || undefined, { ...WITHIN, what: "RESUME_ACK" });
  return resumed;
}
