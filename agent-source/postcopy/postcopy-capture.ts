/**
 * Takes the parts of QEMU's stream that only post-copy has: the ranges that QEMU discards, the package with the device
 * state, and the pages that are left. It also takes the page requests of the destination.
 *
 *     STOP │ discards │ package │ pages, each once, in their last versions … END EOF
 *          └ no page is sent    └ pages are sent in the order of postcopy-scheduler.ts
 *
 * A page that is pending and that QEMU does not discard is in its last version. The agent adds such pages to the
 * discards and sends them itself, so none of them has to be sent while the guest is stopped. A page that is pending and
 * that QEMU discards comes again, so the pending version is dropped.
 *
 * QEMU goes through the guest's memory as fast as the agent reads the stream, and sends requested pages before the
 * others. The agent requests the pages that are to be sent next (active-push.ts), and reads no faster than the link
 * takes the pages, so that few pages queue before a page for which the guest waits.
 *
 * Until the package is complete, PrecopyCapture takes the pages of the stream; after that, this class takes them.
 */
import { encodeDiscards } from "../../shared/codec/discard-frame.ts";
import { MigrationFault } from "../../shared/fault.ts";
import { PageSet } from "../../shared/page/page-set.ts";
import { encodePong, PageRequests, REQUESTED_PAGES_MAX } from "../../shared/qemu/return-path/return-path.ts";
import { encodeAdvise, encodeOpenReturnPath, encodePostcopyEnd } from "../../shared/qemu/stream/command-encoder.ts";
import type { PageSink, PostcopySink, RamSetup } from "../../shared/qemu/stream/stream-reader.ts";
import { address, pageIndex } from "../../shared/units.ts";
import type { PostcopyPeer } from "../link/peer-inbox.ts";
import type { FrameSender } from "../send/frame-sender.ts";
import type { PrecopyScheduler } from "../send/precopy-scheduler.ts";
import { ActivePush } from "./active-push.ts";
import { PostcopyScheduler } from "./postcopy-scheduler.ts";

export interface PostcopyCaptureOptions {
  /** The memory that the stream is read into. */
  readonly memory: Uint8Array;
  readonly scheduler: PrecopyScheduler;
  readonly sender: FrameSender;
  /** How many pages the guest has, in all RAM blocks. */
  readonly pageCount: number;
  /**
   * When the guest has waited for a page, active push asks QEMU for at most this many of the pages that follow it in
   * memory; 0 asks for none.
   */
  readonly aheadPages: number;
  /** Writes on QEMU's return path. */
  readonly answer: (bytes: Uint8Array) => void;
  /** True if, of the pages for which the guest does not wait, QEMU is asked for the hottest first. */
  readonly byHeat: boolean;
  /** Called when the discards and the package are queued: only pages are left. */
  readonly onPackaged: () => void;
  /** Reads QEMU's stream on, if reading had stopped because a page was not taken. */
  readonly resumeIntake: () => void;
  /** Called when the stream was read to its end. */
  readonly onEnd: () => void;
}

/**
 * - `precopy`: QEMU has discarded nothing, and may still complete as in precopy.
 * - `discarding`: the guest is stopped, and no page is sent.
 * - `packaged`: the package is queued. Only pages for which the guest waits are sent.
 * - `flowing`: the guest runs at the destination, or may run there. All pages are sent.
 */
type Phase = "precopy" | "discarding" | "packaged" | "flowing";

/**
 * The most pages that QEMU was asked for or that wait for the link. A page for which the guest waits may queue behind
 * these pages. Limits of 512 and of 1024 pages were tried and not adopted (docs/design/post-copy.md#constants).
 */
const LOOKAHEAD_PAGES = 256;
/** The fewest pages that are worth asking QEMU for. */
const ASK_PAGES_MIN = 64;
/** The size of the field before the package that has the package's length, bytes. */
const LENGTH_BYTES = 4;

export class PostcopyCapture implements PostcopySink, PageSink, PostcopyPeer {
  readonly scheduler: PostcopyScheduler;
  /** How many pages came a second time and were dropped. */
  repeated = 0;
  private phase: Phase = "precopy";
  private readonly options: PostcopyCaptureOptions;
  /** The pages that QEMU has still to send. */
  private readonly awaited: PageSet;
  /** The awaited pages that QEMU was asked for. */
  private readonly asked: PageSet;
  private readonly push: ActivePush;
  private requests = new PageRequests([]);
  private ramSectionId = 0;
  /**
   * False when QEMU's migration was begun anew and not resumed: QEMU then sends all its pages in its own order, from
   * the first one, and answers no requests for pages.
   */
  private takesRequests = true;
  /** The length field and, after it, the package. The first `deviceBytes` bytes are filled in. */
  private device: Uint8Array = new Uint8Array(0);
  private deviceBytes = 0;

  constructor(options: PostcopyCaptureOptions) {
    this.options = options;
    const { scheduler, pageCount, aheadPages, byHeat } = options;
    const { heat } = scheduler;
    this.awaited = new PageSet(pageCount);
    this.asked = new PageSet(pageCount);
    this.push = new ActivePush({ awaited: this.awaited, asked: this.asked, heat, aheadPages, byHeat });
    this.scheduler = new PostcopyScheduler({
      kernels: scheduler.kernels,
      pages: scheduler.pages,
      total: scheduler.total,
      pageCount,
    });
  }

  /** True from the end of the package on: this class takes the pages. */
  get isActive(): boolean {
    return this.phase === "packaged" || this.phase === "flowing";
  }

  /** Takes the list of RAM blocks, before the first page. */
  layout({ blocks, ramSectionId }: Pick<RamSetup, "blocks" | "ramSectionId">): void {
    this.requests = new PageRequests(blocks);
    this.ramSectionId = ramSectionId;
  }

  /**
   * Goes on with a post-copy whose stream was broken.
   * @param missing the pages that the destination misses, which QEMU is going to send
   * @param takesRequests false for a QEMU that sends everything that it has, in its own order: pages that are not
   *   missing are dropped
   */
  resume(missing: PageSet, setup: Pick<RamSetup, "blocks" | "ramSectionId">, takesRequests: boolean): void {
    this.layout(setup);
    this.takesRequests = takesRequests;
    for (let page = missing.next(0), end = 0; page < missing.pageCount; page = missing.next(end)) {
      end = missing.nextAbsent(page);
      this.awaited.addRange(page, end - page);
      this.scheduler.missing.addRange(page, end - page);
    }
    this.begin();
    this.flow();
  }

  /**
   * Sends pages for which the guest does not wait, too. Called when the guest runs at the destination, or may run
   * there. Before that, such pages would take link and processors from what the guest needs for its next instruction.
   */
  flow(): void {
    if (this.phase !== "packaged") return;
    this.phase = "flowing";
    this.options.sender.pagesHeld = false;
    this.askOn();
    this.options.resumeIntake();
    this.options.sender.pump();
  }

  /** @returns a bit for each of the pages [first, first + count): 1 if QEMU has still to send that page */
  awaitedBits(first: number, count: number): Uint8Array {
    return this.awaited.bits(first, count);
  }

  /** Writes on QEMU's return path. */
  answer(bytes: Uint8Array): void {
    this.options.answer(bytes);
  }

  // ── PostcopySink ──

  ping(value: number): void {
    this.options.answer(encodePong(value));
  }

  advised(): void {
    this.options.sender.sendVerbatim(encodeOpenReturnPath(), "head");
    this.options.sender.sendVerbatim(encodeAdvise(), "head");
  }

  discard(firstPage: number, pageCount: number): void {
    const { sender, scheduler } = this.options;
    const { pages } = scheduler;
    this.phase = "discarding";
    sender.pagesHeld = true;
    this.awaited.addRange(firstPage, pageCount);
    for (let page = firstPage; page < firstPage + pageCount; page++) pages.drop(pageIndex(page));
  }

  packageStart(byteLength: number): void {
    this.options.sender.pagesHeld = true;
    this.device = new Uint8Array(LENGTH_BYTES + byteLength);
    new DataView(this.device.buffer).setUint32(0, byteLength, true);
    this.deviceBytes = LENGTH_BYTES;
  }

  packageBytes(start: number, end: number): void {
    this.device.set(this.options.memory.subarray(start, end), this.deviceBytes);
    this.deviceBytes += end - start;
  }

  packageEnd(): PageSink {
    const { options, scheduler } = this;
    const { pages } = options.scheduler;
    const { missing } = scheduler;
    for (let page = 0; page < options.pageCount; page++)
      if (this.awaited.has(page) || pages.isPending(pageIndex(page))) missing.add(page);
    for (const body of encodeDiscards(missing)) options.sender.sendVerbatim(body, "discards");
    options.sender.sendVerbatim(this.device, "package");
    this.device = new Uint8Array(0);
    this.begin();
    options.onPackaged();
    return this;
  }

  /**
   * Begins to send pages as PostcopyScheduler chooses them. Each page is sent once from here on, so the bases are given
   * up.
   */
  private begin(): void {
    const { scheduler, sender } = this.options;
    this.phase = "packaged";
    scheduler.pages.dropBases();
    scheduler.holdPages = 0;
    this.push.begin();
    sender.takeFrom(this.scheduler);
  }

  // ── PageSink ──

  page(page: number, at: number): boolean {
    if (this.isRepeated(page)) return true;
    const { scheduler, sender } = this.options;
    if (!this.hasRoom || !scheduler.capture(pageIndex(page), address(at))) {
      sender.pump();
      if (!this.hasRoom || !scheduler.capture(pageIndex(page), address(at))) return false;
    }
    this.taken(page);
    return true;
  }

  zeroPage(page: number): boolean {
    if (this.isRepeated(page)) return true;
    const { scheduler, sender } = this.options;
    if (!scheduler.captureZero(pageIndex(page))) {
      sender.pump();
      if (!scheduler.captureZero(pageIndex(page))) return false;
    }
    this.taken(page);
    return true;
  }

  partEnd(): boolean {
    this.options.sender.pump();
    this.askOn();
    return true;
  }

  ramEnd(): void {
    this.options.sender.sendVerbatim(encodePostcopyEnd(this.ramSectionId), "device");
  }

  end(): void {
    this.options.onEnd();
  }

  // ── requests ──

  /** Asks QEMU for more pages and reads on. Called when pages have left the arena. */
  roomMade(): void {
    this.askOn();
    this.options.resumeIntake();
  }

  /** Asks QEMU for the pages that are to be sent next, at most as many as LOOKAHEAD_PAGES leaves room for. */
  askOn(): void {
    if (this.phase !== "flowing") return;
    const room = LOOKAHEAD_PAGES - this.asked.size - this.options.scheduler.pages.pendingCount;
    if (room < ASK_PAGES_MIN) return;
    this.push.next(room, (firstPage, pageCount) => this.requests.add(firstPage, pageCount));
    this.sendRequests();
  }

  /** Sends the gathered requests to QEMU, or drops them if QEMU takes none. */
  private sendRequests(): void {
    if (!this.takesRequests) this.requests.take();
    if (!this.requests.isEmpty) this.options.answer(this.requests.take());
  }

  /**
   * Takes a request of the destination's guest, which waits for these pages. A request that comes before the package is
   * complete is ignored.
   * @throws MigrationFault `peer-invalid` for pages that the guest does not have, for more than REQUESTED_PAGES_MAX
   *   pages, and for a request of no page
   */
  request(firstPage: number, pageCount: number): void {
    if (pageCount === 0 || pageCount > REQUESTED_PAGES_MAX || firstPage + pageCount > this.options.pageCount)
      throw new MigrationFault(
        "peer-invalid",
        `The destination asks for ${pageCount} pages from page ${firstPage} on, of ${this.options.pageCount}`,
        { role: "destination" },
      );
    if (!this.isActive) return;
    for (let page = firstPage; page < firstPage + pageCount; page++) {
      this.push.fault(page);
      if (this.scheduler.request(page) && this.asked.add(page)) this.requests.add(page, 1);
    }
    this.sendRequests();
    if (this.scheduler.wantsMore) this.options.resumeIntake();
    this.options.sender.pump();
  }

  /**
   * Passes on to the source QEMU that the destination's QEMU has answered a ping of the package. From 10.2 on the
   * source QEMU waits for such an answer.
   */
  pong(value: number): void {
    this.options.answer(encodePong(value));
  }

  /** How many pages QEMU has still to send. */
  get awaitedPages(): number {
    return this.awaited.size;
  }

  /**
   * Counts in `repeated` a page that came before, unless QEMU sends everything again.
   * @returns true for a page that QEMU has sent before, or that is not missing: such a page is dropped
   */
  private isRepeated(page: number): boolean {
    if (this.awaited.has(page)) return false;
    if (this.takesRequests) this.repeated++;
    return true;
  }

  /** True if another page may be read: few pages wait for the link, or the guest waits for a page that QEMU has. */
  private get hasRoom(): boolean {
    const ahead = this.phase === "flowing" && this.options.scheduler.pages.pendingCount < LOOKAHEAD_PAGES;
    return ahead || this.scheduler.wantsMore;
  }

  /** Notes that a page has come from QEMU and is pending now. */
  private taken(page: number): void {
    this.awaited.remove(page);
    this.asked.remove(page);
    this.scheduler.captured(page);
  }
}
