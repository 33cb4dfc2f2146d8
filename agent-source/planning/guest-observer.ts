/**
 * Reads off QEMU's stream what a planner must know about a guest: which pages have content, how many pages are dirtied
 * within any time, and samples of pages (docs/design/planning.md#looking-at-a-guest). The stream ends in the source
 * agent, which keeps only counts and samples of it. A *look* is the moment at which the observer reads off the stream
 * which pages the guest has dirtied since the look before. *Close looks* follow each other without a pause.
 *
 *     first copy ─► settling ─► paced, for the time that was asked for ─► close looks, for moments ─► done
 */

import { MigrationFault } from "../../shared/fault.ts";
import { DirtyCensus } from "../../shared/model/dirty-census.ts";
import type { DirtySample } from "../../shared/model/dirty-curve.ts";
import { pageCountOf } from "../../shared/page/geometry.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { RamSetup, StreamSink } from "../../shared/qemu/stream/stream-reader.ts";
import type { Clock, Timer } from "../../shared/runtime/clock.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";
import { type Address, address } from "../../shared/units.ts";
import { DrainedSections } from "../capture/drained-sections.ts";
import { SyncPace } from "../capture/sync-pace.ts";
import type { PageSamples } from "./page-samples.ts";

export interface ObserverParts {
  readonly kernels: PageKernels;
  readonly samples: PageSamples;
  readonly pageCount: number;
  readonly clock: Clock;
  /** How long the paced looks last, after the first copy, milliseconds. */
  readonly observeMs: number;
  /** The most paced looks a second. */
  readonly looksPerSecond: number;
  /** Called when the stream may be read on, after partEnd() has stopped it. */
  readonly resumeIntake: () => void;
}

/**
 * - `first`: every page comes once.
 * - `settling`: the pages that come are not counted, since they were dirtied during the whole of the first copy and not
 *   between two looks, or since QEMU does not sync its bitmap yet.
 * - `paced`: looks at regular intervals.
 * - `close`: looks without a pause between them.
 */
type Phase = "first" | "settling" | "paced" | "close" | "done";

/**
 * The shortest time from the beginning of the stream to the first look that counts, seconds. QEMU syncs its bitmap when
 * less is left to send than a threshold, which it works out 100 ms after its migration began. Before that the threshold
 * is 0 (migration.c, migration_update_counters): QEMU does not sync, and sections are empty whatever the guest does.
 */
const QEMU_SYNCS_AFTER_SECONDS = 0.25;

/**
 * How long the observer waits for the last pages of the first copy once QEMU sends nothing more, milliseconds. After
 * this time it ends with the pages that have come: pages that the guest's balloon calls free never come.
 */
const READ_WITHIN_MS = 1000;

/** How long the close looks last, seconds. They show what is dirtied within milliseconds. */
const CLOSE_LOOK_SECONDS = 0.2;

export class GuestObserver implements StreamSink {
  readonly done: Deferred<void> = deferred();
  zeroPages = 0;
  contentPages = 0;
  /** How long the first copy took, seconds. */
  firstCopySeconds = 0;
  /** How many pages the paced looks have found dirty; a page counts once for each look that found it. */
  dirtiedPages = 0;
  /** How long the paced looks have lasted, seconds. */
  observedSeconds = 0;
  private readonly parts: ObserverParts;
  private readonly census: DirtyCensus;
  private readonly pace: SyncPace;
  private readonly drained = new DrainedSections();
  /**
   * The shortest epoch of the census, seconds: half of the interval between two paced looks. The census counts by
   * epochs which pages are dirtied, and a look ends an epoch only if the epoch has lasted this long.
   */
  private readonly epochSeconds: number;
  private phase: Phase = "first";
  private phaseBegan: number;
  private now: number;
  private sectionPages = 0;
  private streamBegan = 0;
  /** When the last look was, seconds on the observer's clock. */
  private windowBegan = 0;
  /** Seconds between the last look and the look before it: the pages that come now were dirtied in this time. */
  private lastWindow = 0;
  /** How many pages have come since the last look. */
  private windowPages = 0;
  /** True once QEMU has sent everything that it had. */
  private isLast = false;
  /** True once QEMU has synced its dirty bitmap since the first pass began. */
  private hasSynced = false;
  /** Sums over the close looks that count: how many there were, how long their pages were dirtied, and those pages. */
  private readonly close = { looks: 0, seconds: 0, pages: 0 };
  /**
   * How many more of the close looks are not counted in `close`. The first two are not counted, because their pages may
   * have been dirtied before the close looks began.
   */
  private looksToSkip = 2;
  private timer: Timer | undefined;

  constructor(parts: ObserverParts) {
    this.parts = parts;
    this.census = new DirtyCensus(parts.pageCount);
    this.now = parts.clock.monotonicMs() / 1000;
    this.phaseBegan = this.now;
    this.pace = new SyncPace(parts.looksPerSecond, 1000 * this.now);
    this.epochSeconds = 0.5 / parts.looksPerSecond;
  }

  /** How many different pages the guest dirties within times of several lengths. */
  dirtySamples(): readonly DirtySample[] {
    const { looks, seconds, pages } = this.close;
    const paced = this.census.samples();
    const shortest = paced[0]?.seconds ?? Number.POSITIVE_INFINITY;
    const close = looks === 0 ? [] : [{ seconds: seconds / looks, pages: pages / looks }];
    return [...close.filter((one) => one.seconds < shortest), ...paced];
  }

  /** How many different pages the paced looks have found dirty. */
  get workingSetPages(): number {
    return this.census.pages;
  }

  stop(): void {
    this.parts.clock.cancel(this.timer);
    this.phase = "done";
  }

  /** Notes that the guest stands still and that QEMU has sent everything: what was not read yet is in QEMU's socket. */
  nothingMore(): void {
    this.isLast = true;
    this.endWhenRead();
    // pages that the guest's balloon called free while the guest ran do not come, so not every page is waited for
    if (this.phase !== "done") this.timer = this.parts.clock.after(READ_WITHIN_MS, () => this.endNow());
  }

  /**
   * Notes that QEMU begins a pass over its dirty bitmap (event MIGRATION_PASS). When the second pass has begun and the
   * bitmap was drained since, every page has come that QEMU sends. Pages that the guest's balloon calls free
   * (free-page-hint) never come.
   * @param pass 1, 2, 3 …
   */
  passBegins(pass: number): void {
    this.hasSynced ||= pass > 1;
  }

  // ── StreamSink ──

  prologue(): void {}

  layout({ blocks }: RamSetup): void {
    const pages = pageCountOf(blocks);
    if (pages !== this.parts.pageCount)
      throw new MigrationFault(
        "stream-unsupported",
        `QEMU's stream has ${pages} pages, and its monitor named ${this.parts.pageCount}`,
      );
    this.streamBegan = this.parts.clock.monotonicMs() / 1000;
  }

  page(page: number, at: number): boolean {
    const place: Address = address(at);
    if (this.parts.kernels.isZero(place)) return this.zeroPage(page);
    this.sectionPages++;
    if (this.phase === "first") {
      this.contentPages++;
      this.parts.samples.first(page, place, this.now);
    } else if (this.phase === "paced") {
      this.parts.samples.again(page, place, this.now);
      this.dirtied(page);
    }
    return true;
  }

  zeroPage(page: number): boolean {
    this.sectionPages++;
    if (this.phase === "first") this.zeroPages++;
    else if (this.phase === "paced") {
      this.parts.samples.zero(page);
      this.dirtied(page);
    }
    return true;
  }

  partEnd(): boolean {
    const pages = this.sectionPages;
    this.sectionPages = 0;
    this.windowPages += pages;
    this.now = this.parts.clock.monotonicMs() / 1000;
    const drained = this.drained.next(pages);
    if (this.isLast) this.endWhenRead();
    else if (drained) this.look();
    if (this.phase === "done") {
      this.done.resolve();
      return false;
    }
    return this.isLast || !drained || this.phase !== "paced" || this.mayReadOn(pages);
  }

  stopped(): void {
    throw new MigrationFault(
      "qemu-failed",
      "The source QEMU has stopped the guest, although the agent only looks at it",
    );
  }

  ramEnd(): void {}
  device(): void {}
  end(): void {}

  // ──

  private endWhenRead(): void {
    if (this.phase !== "first" || this.hasEveryPage) this.endNow();
  }

  private endNow(): void {
    // the first copy ended with the last section that was read, at `now`: the wait for pages that never come is no part
    // of it
    if (this.phase === "first") this.firstCopySeconds = this.now - this.phaseBegan;
    else if (this.phase === "paced") this.observedSeconds = this.parts.clock.monotonicMs() / 1000 - this.phaseBegan;
    this.stop();
    this.done.resolve();
  }

  private get hasEveryPage(): boolean {
    return this.contentPages + this.zeroPages >= this.parts.pageCount;
  }

  private dirtied(page: number): void {
    this.dirtiedPages++;
    this.census.dirtied(page);
  }

  /**
   * Takes a look, when a section has drained the bitmap. QEMU syncs then, so the pages that come until the next look
   * were dirtied between this look and the one before.
   */
  private look(): void {
    const inPhase = this.now - this.phaseBegan;
    switch (this.phase) {
      case "first":
        if (!this.hasSynced && !this.hasEveryPage) return;
        this.firstCopySeconds = inPhase;
        this.enter("settling");
        break;
      case "settling":
        if (this.now - this.streamBegan < QEMU_SYNCS_AFTER_SECONDS) return;
        this.enter("paced");
        this.census.begin(this.now);
        break;
      case "paced":
        this.observedSeconds = inPhase;
        if (this.census.since(this.now) >= this.epochSeconds && !this.census.nextEpoch(this.now)) this.enter("close");
        if (1000 * inPhase >= this.parts.observeMs) this.enter("close");
        break;
      case "close":
        if (--this.looksToSkip < 0) {
          this.close.looks++;
          this.close.seconds += this.lastWindow;
          this.close.pages += this.windowPages;
        }
        if (inPhase >= CLOSE_LOOK_SECONDS) this.enter("done");
        break;
      case "done":
        break;
    }
    this.lastWindow = this.now - this.windowBegan;
    this.windowBegan = this.now;
    this.windowPages = 0;
  }

  private enter(phase: Phase): void {
    this.phase = phase;
    this.phaseBegan = this.now;
  }

  /**
   * Tells whether to read on at once, after a section that drained the bitmap. If not, a timer is set, which resumes
   * the reading when the next look is due.
   * @param pages how many pages the section had
   */
  private mayReadOn(pages: number): boolean {
    const waitMs = this.pace.holdMs(pages, true, 1000 * this.now);
    if (waitMs <= 0) return true;
    this.timer = this.parts.clock.after(waitMs, this.parts.resumeIntake);
    return false;
  }
}
