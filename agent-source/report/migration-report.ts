/** What the operator sees of a migration, read from its status and its session at the moment of asking. */
import { defined } from "../../shared/defined.ts";
import type { MigrationFault } from "../../shared/fault.ts";
import { HOT_CLASS } from "../../shared/page/heat-map.ts";
import {
  type HeatMapBlock,
  isFinal,
  type MigrateCall,
  type MigrationErrorView,
  type MigrationResult,
  type MigrationStatus,
  type MigrationView,
  NO_PROGRESS,
  type Progress,
} from "../../shared/protocol/report.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { TransferSession } from "../transfer/transfer-session.ts";

/** Rates are means over this time, milliseconds. */
const RATE_MS = 1000;

/** The parts of a session that the report reads. */
export type WatchedSession = Pick<TransferSession, "capture" | "sender" | "scheduler"> & {
  readonly channel: Pick<TransferSession["channel"], "downForMs">;
};

export class MigrationReport {
  status: MigrationStatus = "preparing";
  negotiated: Readonly<Record<string, string>> = {};
  result: MigrationResult | undefined;
  readonly degradations: string[] = [];
  /** Bitmap syncs, as QEMU's MIGRATION_PASS events count them. */
  passes = 0;
  /** When the migration began, on the clock's monotonicMs(). */
  readonly startedMs: number;
  /** When the migration began, milliseconds since the epoch. */
  readonly startedAtMs: number;
  private readonly id: string;
  private readonly call: MigrateCall;
  private readonly clock: Clock;
  private error: MigrationErrorView | undefined;
  private session: WatchedSession | undefined;
  private last: Progress = NO_PROGRESS;
  private readonly samples: { ms: number; sent: number; dirtied: number }[] = [];

  /** @param startedAtMs when a migration from the journal began, milliseconds since the epoch. @default now */
  constructor(id: string, call: MigrateCall, clock: Clock, startedAtMs = Math.floor(clock.nowUs() / 1000)) {
    this.id = id;
    this.call = call;
    this.clock = clock;
    this.startedAtMs = startedAtMs;
    this.startedMs = clock.monotonicMs() - Math.max(0, clock.nowUs() / 1000 - startedAtMs);
  }

  /** Reads progress from this session from now on. With undefined the progress stays as it was last. */
  follow(session: WatchedSession | undefined): void {
    if (session === undefined && this.session !== undefined) {
      // without a session nothing estimates the remaining time
      const { etaSeconds: _, ...last } = this.progress();
      this.last = last;
    }
    this.session = session;
  }

  failed(fault: MigrationFault, guestNow: string): void {
    this.error = {
      code: fault.code,
      message: fault.message,
      guestNow: fault.guestNow ?? guestNow,
      advice: fault.advice ?? "See the agents' logs for this migration's id",
      refusals: fault.refusals,
    };
  }

  /** Says how the copy will go on, among what was agreed; an empty text says that there is nothing to say any more. */
  foresees(outlook: string): void {
    const { outlook: _, ...agreed } = this.negotiated;
    this.negotiated = outlook === "" ? agreed : { ...agreed, outlook };
  }

  /** Says what the guest does now, while the migration is being undone. */
  guestNow(text: string): void {
    if (this.error !== undefined) this.error = { ...this.error, guestNow: text };
  }

  /** Removes the error, since what it says is no longer so. */
  cleared(): void {
    this.error = undefined;
  }

  /**
   * Shows a migration that ended in an earlier life of this agent.
   * @param atMs when it ended, milliseconds since the epoch
   */
  ended(status: MigrationStatus, atMs: number): void {
    this.status = status;
    this.last = { ...NO_PROGRESS, elapsedSeconds: Math.max(0, atMs - this.startedAtMs) / 1000 };
  }

  /**
   * True while it is known what both agents agreed on, and no page was sent. Operators who watch the migration are to
   * see the terms before the first page (docs/decisions/0033).
   */
  get showsTerms(): boolean {
    return this.status === "preparing" && this.negotiated.strategy !== undefined;
  }

  view(): MigrationView {
    const { id, call, status, startedAtMs, negotiated } = this;
    return {
      id,
      guest: call.guest,
      destination: call.to,
      status,
      startedAtMs,
      negotiated,
      progress: this.progress(),
      ...defined({ error: this.error, result: this.result }),
    };
  }

  heatMap(cells: number): HeatMapBlock[] {
    const layout = this.session?.capture.layoutSeen;
    const heat = this.session?.scheduler.heat;
    if (layout === undefined || heat === undefined) return [];
    return layout.blocks.map((block) => {
      const { pagesPerCell, heat: means } = heat.cells(block.firstPage, block.pageCount, cells === 0 ? 256 : cells);
      return { name: block.name, pagesPerCell, cells: means };
    });
  }

  private progress(): Progress {
    const { session } = this;
    const nowMs = this.clock.monotonicMs();
    // before there is a session only the time is known; after the session the last figures stand
    if (session === undefined)
      return this.last === NO_PROGRESS
        ? { ...NO_PROGRESS, elapsedSeconds: (nowMs - this.startedMs) / 1000 }
        : this.last;
    const { capture, sender, scheduler } = session;
    const { observer: watch } = capture;
    const seen = watch.observe(false);
    const etaSeconds = isFinal(this.status) ? undefined : watch.etaSeconds;
    // the first pass captures every page, dirtied or not: only pages that came after it tell what the guest dirties
    const dirtied = capture.firstPassDone ? scheduler.pages.captured - capture.firstPassPages : 0;
    const { sentRate, dirtyRate } = this.rates(nowMs, sender.sentBytes, dirtied);
    const coldest = scheduler.pages.coldestPendingClass();
    this.last = {
      elapsedSeconds: (nowMs - this.startedMs) / 1000,
      guestMemoryBytes: capture.layoutSeen?.byteLength ?? 0,
      passes: this.passes,
      bytesSent: sender.sentBytes,
      bytesPerSecond: sentRate,
      estimatedResidualBytes: Math.round(seen.residualBytes + seen.sweptPages * seen.bytesPerPage),
      estimatedDowntimeMs: watch.estimatedDowntimeMs,
      pagesPending: scheduler.pages.pendingCount + scheduler.pages.zeroCount,
      pagesHeld: coldest >= HOT_CLASS ? Math.min(scheduler.pages.pendingCount, scheduler.holdPages) : 0,
      firstPassFraction: capture.firstPassFraction,
      heatClasses: scheduler.heat.histogram(),
      dirtyBytesPerSecond: dirtyRate,
      roundTripMs: seen.roundTripMs,
      linkDownSeconds: session.channel.downForMs / 1000,
      downtimeTargetMs: this.call.options.downtimeTargetMs,
      stalledSeconds: watch.stalledMs / 1000,
      ...defined({ etaSeconds }),
    };
    return this.last;
  }

  private rates(nowMs: number, sent: number, dirtied: number): { sentRate: number; dirtyRate: number } {
    this.samples.push({ ms: nowMs, sent, dirtied });
    while (this.samples.length > 2 && nowMs - this.samples[0]!.ms > RATE_MS) this.samples.shift();
    const first = this.samples[0]!;
    const seconds = (nowMs - first.ms) / 1000;
    if (seconds <= 0) return { sentRate: 0, dirtyRate: 0 };
    return { sentRate: (sent - first.sent) / seconds, dirtyRate: ((dirtied - first.dirtied) * PAGE_SIZE) / seconds };
  }
}
