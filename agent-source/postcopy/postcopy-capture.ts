/**
 * Post-copy's part of QEMU's stream at the source: what it discards, its package, and the pages that are left.
 *
 *     STOP │ discards │ package │ pages, each once, in their last versions … END EOF
 *          └ no page is sent    └ the frames of post-copy begin (postcopy-scheduler.ts)
 *
 * What was captured before and QEMU does not name is final: the agent adds it to the discards and sends it itself, so
 * nothing has to be drained while the guest is stopped. What is pending and QEMU names comes again, and is dropped.
 *
 * QEMU sweeps its memory as fast as it is read, and sends what it is asked for ahead of that. It is asked for the pages
 * that are to come next (active-push.ts), and read no faster than the link takes them, so that little lies ahead of a
 * page that the guest waits for.
 */
import { encodeDiscards } from "../../shared/codec/discard-frame.ts";
import { MigrationFault } from "../../shared/fault.ts";
import { PageSet } from "../../shared/page/page-set.ts";
import { encodePong, PageRequests } from "../../shared/qemu/return-path/return-path.ts";
import { encodeAdvise, encodeOpenReturnPath, encodePostcopyEnd } from "../../shared/qemu/stream/command-encoder.ts";
import type { PostcopySink, RamSetup } from "../../shared/qemu/stream/stream-reader.ts";
import { address, pageIndex } from "../../shared/units.ts";
import type { PostcopyPeer } from "../link/peer-inbox.ts";
import type { FrameSender } from "../send/frame-sender.ts";
import type { PrecopyScheduler } from "../send/precopy-scheduler.ts";
import { ActivePush } from "./active-push.ts";
import { PostcopyScheduler } from "./postcopy-scheduler.ts";

export interface PostcopyCaptureOptions {
  /** That the stream is read in. */
  readonly memory: Uint8Array;
  readonly scheduler: PrecopyScheduler;
  readonly sender: FrameSender;
  readonly pageCount: number;
  readonly aheadPages: number;
  /** Writes on QEMU's return path. */
  readonly answer: (bytes: Uint8Array) => void;
  readonly byHeat: boolean;
  /** The discards and the package are queued: what is left are pages. */
  readonly onPackaged: () => void;
  /** Reading may go on: a page is waited for that QEMU has. */
  readonly onWanted: () => void;
}

/** Pages that were asked of QEMU, and that wait for the link, at most: what is waited for may be behind so many. */
const LOOKAHEAD_PAGES = 256;
/** Fewer are not worth a request. */
const ASK_PAGES_MIN = 64;
const LENGTH_BYTES = 4;

/**
 * The most pages that one request may name. A QEMU asks for a single page at a time, and guests with huge pages are
 * refused in post-copy. Without this bound one message could keep the agent's other migrations waiting.
 */
const REQUEST_PAGES_MAX = 1024;

export class PostcopyCapture implements PostcopySink, PostcopyPeer {
  readonly scheduler: PostcopyScheduler;
  /** Pages that QEMU will send. */
  private readonly awaited: PageSet;
  private readonly parts: PostcopyCaptureOptions;
  /** Of these, the ones that it was asked for. */
  private readonly asked: PageSet;
  private readonly pull: ActivePush;
  private requests = new PageRequests([]);
  private takesRequests = true;
  /** Pages that nobody waits for wait too: until the guest runs at the destination. */
  private flows = false;
  private device: Uint8Array = new Uint8Array(0);
  private deviceBytes = 0;
  private discarding = false;
  /** The package is there. */
  active = false;
  /** The guest goes on here: nothing is sent any more. */
  private givenBack = false;
  /** Pages that came a second time, and were left out. */
  repeated = 0;

  constructor(parts: PostcopyCaptureOptions) {
    this.parts = parts;
    const { scheduler, pageCount, aheadPages, byHeat } = parts;
    const { heat } = scheduler;
    this.awaited = new PageSet(pageCount);
    this.asked = new PageSet(pageCount);
    this.pull = new ActivePush({ awaited: this.awaited, asked: this.asked, heat, aheadPages, byHeat });
    this.scheduler = new PostcopyScheduler({
      kernels: scheduler.kernels,
      pages: scheduler.pages,
      total: scheduler.total,
      pageCount,
    });
  }

  layout(setup: Pick<RamSetup, "blocks">): void {
    this.requests = new PageRequests(setup.blocks);
  }

  /**
   * Post-copy is taken up: these pages are missing at the destination, and QEMU is going to send them.
   * @param takesRequests false: QEMU sends all that it has, in its own order, and what is not missing is left out
   */
  resume(missing: PageSet, setup: Pick<RamSetup, "blocks">, takesRequests: boolean): void {
    this.takesRequests = takesRequests;
    this.requests = new PageRequests(setup.blocks);
    for (let page = missing.next(0), end = 0; page < missing.pageCount; page = missing.next(end)) {
      end = missing.nextAbsent(page);
      this.awaited.addRange(page, end - page);
      this.scheduler.missing.addRange(page, end - page);
    }
    this.parts.scheduler.pages.dropBases();
    this.active = true;
    this.pull.begin();
    this.parts.sender.enterPostcopy(this.scheduler);
    this.flow();
  }

  /**
   * The guest runs at the destination, or may: pages flow that nobody waits for. Before, they would take link and cores
   * from what stands between the guest and its next instruction.
   */
  flow(): void {
    if (this.flows || this.givenBack) return;
    this.flows = true;
    this.parts.sender.pagesHeld = false;
    this.askOn();
    this.parts.onWanted();
    this.parts.sender.pump();
  }

  /** Of pages [first, first + count): a bit for each that QEMU has still to send. */
  awaitedBits(first: number, count: number): Uint8Array {
    return this.awaited.bits(first, count);
  }

  /** Writes on QEMU's return path. */
  answer(bytes: Uint8Array): void {
    this.parts.answer(bytes);
  }

  // ── PostcopySink ──

  ping(value: number): void {
    this.parts.answer(encodePong(value));
  }

  advised(): void {
    this.parts.sender.sendVerbatim(encodeOpenReturnPath(), "head");
    this.parts.sender.sendVerbatim(encodeAdvise(), "head");
  }

  discard(firstPage: number, pageCount: number): void {
    const { pages } = this.parts.scheduler;
    if (!this.discarding) this.parts.sender.pagesHeld = true;
    this.discarding = true;
    this.awaited.addRange(firstPage, pageCount);
    for (let page = firstPage; page < firstPage + pageCount; page++) pages.drop(pageIndex(page));
  }

  packageStart(byteLength: number): void {
    this.parts.sender.pagesHeld = true;
    this.device = new Uint8Array(LENGTH_BYTES + byteLength);
    new DataView(this.device.buffer).setUint32(0, byteLength, true);
    this.deviceBytes = LENGTH_BYTES;
  }

  packageBytes(start: number, end: number): void {
    this.device.set(this.parts.memory.subarray(start, end), this.deviceBytes);
    this.deviceBytes += end - start;
  }

  packageEnd(): void {
    const { parts, scheduler } = this;
    const { pages } = parts.scheduler;
    const { missing } = scheduler;
    for (let page = 0; page < parts.pageCount; page++)
      if (this.awaited.has(page) || pages.isPending(pageIndex(page))) missing.add(page);
    pages.dropBases();
    for (const body of encodeDiscards(missing)) parts.sender.sendVerbatim(body, "discards");
    parts.sender.sendVerbatim(this.device, "package");
    this.device = new Uint8Array(0);
    this.active = true;
    this.pull.begin();
    parts.sender.enterPostcopy(scheduler);
    parts.onPackaged();
  }

  // ── pages behind the package ──

  /** @returns was it taken? If not, the reader offers it again when there is room */
  page(page: number, at: number): boolean {
    if (this.isRepeated(page)) return true;
    const { scheduler, sender } = this.parts;
    if (!this.hasRoom || !scheduler.capture(pageIndex(page), address(at))) {
      sender.pump();
      if (!this.hasRoom || !scheduler.capture(pageIndex(page), address(at))) return false;
    }
    this.taken(page);
    return true;
  }

  zeroPage(page: number): boolean {
    if (this.isRepeated(page)) return true;
    const { scheduler, sender } = this.parts;
    if (!scheduler.captureZero(pageIndex(page))) {
      sender.pump();
      if (!scheduler.captureZero(pageIndex(page))) return false;
    }
    this.taken(page);
    return true;
  }

  /** A section of pages ended, or pages have left for the link. */
  askOn(): void {
    if (!this.flows || this.givenBack) return;
    const room = LOOKAHEAD_PAGES - this.asked.size - this.parts.scheduler.pages.pendingCount;
    if (room < ASK_PAGES_MIN) return;
    this.pull.next(room, (firstPage, pageCount) => this.requests.add(firstPage, pageCount));
    this.sendRequests();
  }

  private sendRequests(): void {
    if (!this.takesRequests) this.requests.take();
    if (!this.requests.isEmpty) this.parts.answer(this.requests.take());
  }

  /** QEMU has sent all that it had. */
  ramEnd(ramSectionId: number): void {
    if (this.givenBack) return;
    this.parts.sender.sendVerbatim(encodePostcopyEnd(ramSectionId), "device");
  }

  // ──

  /**
   * The destination's guest waits for these pages.
   * @throws MigrationFault `peer-invalid` for pages that the guest does not have, and for more than REQUEST_PAGES_MAX
   */
  request(firstPage: number, pageCount: number): void {
    if (pageCount === 0 || pageCount > REQUEST_PAGES_MAX || firstPage + pageCount > this.parts.pageCount)
      throw new MigrationFault(
        "peer-invalid",
        `The destination asks for ${pageCount} pages from page ${firstPage} on, of ${this.parts.pageCount}`,
        { role: "destination" },
      );
    if (!this.active || this.givenBack) return;
    for (let page = firstPage; page < firstPage + pageCount; page++) {
      this.pull.fault(page);
      if (this.scheduler.request(page) && this.asked.add(page)) this.requests.add(page, 1);
    }
    this.sendRequests();
    if (this.scheduler.wantsMore) this.parts.onWanted();
    this.parts.sender.pump();
  }

  /** The destination's QEMU has answered a ping of the package; from 10.2 on the source's waits for one. */
  pong(value: number): void {
    this.parts.answer(encodePong(value));
  }

  /** Pages that QEMU has still to send. */
  get awaitedPages(): number {
    return this.awaited.size;
  }

  get isGivenBack(): boolean {
    return this.givenBack;
  }

  /** The guest goes on here: what QEMU has still to send is read and left out. */
  giveBack(): void {
    this.givenBack = true;
    this.parts.sender.pagesHeld = true;
  }

  private isRepeated(page: number): boolean {
    if (this.awaited.has(page) && !this.givenBack) return false;
    if (!this.givenBack && this.takesRequests) this.repeated++;
    this.awaited.remove(page);
    return true;
  }

  /** More is read only while the link has something to take soon, or for a page that is waited for. */
  private get hasRoom(): boolean {
    const ahead = this.flows && this.parts.scheduler.pages.pendingCount < LOOKAHEAD_PAGES;
    return ahead || this.scheduler.wantsMore;
  }

  private taken(page: number): void {
    this.awaited.remove(page);
    this.asked.remove(page);
    this.scheduler.captured(page);
  }
}
