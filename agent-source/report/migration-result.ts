/** Makes the result of a completed migration from what the session counted and from times of both hosts' clocks. */

import type { Downtime, MigrationResult, PostcopyResult } from "../../shared/protocol/report.ts";
import type { Complete, Running } from "../../shared/protocol/stream-messages.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { processUsage } from "../../shared/runtime/host/process-usage.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { TransferSession } from "../transfer/transfer-session.ts";
import type { MigrationReport } from "./migration-report.ts";

/** Moments of the switchover, microseconds since the epoch on this host's clock. */
export interface SwitchTimes {
  /** When QEMU stopped the guest; 0 for a guest that was paused. */
  readonly stoppedUs: number;
  readonly lastPagesUs: number;
  readonly lastByteUs: number;
  readonly loadedUs: number;
  /** How long the comparison of the memory took, milliseconds; 0 without one. */
  readonly verifyMs: number;
  readonly compared: Compared;
}

/** The result of a comparison of the memory: all pages are alike but those that `exceptions` describes. */
export interface Compared {
  /** How many pages are alike. */
  readonly pages: number;
  /** Pages that differ because the destination's QEMU itself writes to them, each as a sentence. */
  readonly exceptions: readonly string[];
}

/** What the result needs to know of the migration itself. */
export interface Measured {
  readonly clock: Clock;
  readonly report: Pick<MigrationReport, "startedMs" | "passes" | "degradations">;
  /** Processor time of this agent's process when the migration began, seconds. */
  readonly cpuSecondsBefore: number;
}

export interface Outcome {
  readonly session: TransferSession;
  readonly times: SwitchTimes;
  readonly running: Running;
  /** What the destination said at the end of post-copy; undefined without post-copy. */
  readonly complete: Complete | undefined;
  /** Why the switchover was begun when it was. */
  readonly reason: string;
}

export function migrationResult(cx: Measured, outcome: Outcome): MigrationResult {
  const { session, times, running, complete } = outcome;
  const destination = complete ?? running;
  const { sender, scheduler, paused } = session;
  const usage = processUsage();
  const sent = sender.sent;
  const total = sender.sentBytes + session.probeBytes;
  return {
    completed: true,
    totalSeconds: (cx.clock.monotonicMs() - cx.report.startedMs) / 1000,
    paused,
    downtime: paused ? NO_DOWNTIME : downtimeOf(outcome),
    bytes: {
      total,
      zero: Math.round(sent.zero),
      full: Math.round(sent.full),
      delta: Math.round(sent.delta),
      device: sent.device,
      other: session.probeBytes + sent.head,
    },
    pages: {
      captured: scheduler.pages.captured,
      zero: scheduler.total.zeroPages,
      full: scheduler.total.fullPages,
      delta: scheduler.total.deltaPages,
      coalesced: scheduler.pages.coalesced,
      skipped: scheduler.skipped,
    },
    deltaRatio: ratio(scheduler.total.deltaPages * PAGE_SIZE, scheduler.total.deltaBytes),
    zstdRatio: ratio(sender.encoder.rawBytes, sender.encoder.encodedBytes),
    bitmapSyncs: cx.report.passes,
    sourceAgentCpuSeconds: usage.cpuSeconds - cx.cpuSecondsBefore,
    destinationAgentCpuSeconds: destination.agentCpuSeconds,
    sourceAgentPeakMemoryBytes: usage.peakMemoryBytes,
    destinationAgentPeakMemoryBytes: destination.agentPeakMemoryBytes,
    switchReason: outcome.reason,
    stalledSeconds: session.capture.observer.totalStalledMs / 1000,
    verified: times.compared.pages > 0,
    pagesCompared: times.compared.pages,
    verifyExceptions: times.compared.exceptions,
    degradations: [...cx.report.degradations],
    ...(complete === undefined ? {} : { postcopy: postcopyResult(outcome, complete) }),
  };
}

/**
 * Computes how long the guest stood still, and how much of that time each part of the switchover took. The parts add up
 * to the total.
 */
function downtimeOf({ session: { meter }, times, running }: Outcome): Downtime {
  const ms = (fromUs: number, toUs: number): number => Math.max(0, (toUs - fromUs) / 1000);
  const totalMs = ms(times.stoppedUs, meter.toLocal(running.resumedAtUs));
  const lastPagesMs = ms(times.stoppedUs, times.lastPagesUs);
  const deviceStateMs = ms(times.lastPagesUs, times.lastByteUs);
  const loadMs = ms(times.lastByteUs, times.loadedUs);
  const { verifyMs } = times;
  // the time that is in no other part counts as the commit
  const commitMs = Math.max(0, totalMs - lastPagesMs - deviceStateMs - loadMs - verifyMs);
  return { totalMs, lastPagesMs, deviceStateMs, loadMs, verifyMs, commitMs, clockErrorMs: meter.clockErrorMs };
}

/** What post-copy did from the guest's start at the destination (QEMU's event RESUME) until its last page had come. */
function postcopyResult({ session, running }: Outcome, { completedAtUs, service }: Complete): PostcopyResult {
  return {
    seconds: Math.max(0, completedAtUs - running.resumedAtUs) / 1e6,
    requestedPages: service.requests,
    serviceMedianMs: service.medianMs,
    serviceP99Ms: service.p99Ms,
    serviceMaxMs: service.maxMs,
    repeatedPages: session.postcopy?.repeated ?? 0,
  };
}

/** The downtime of a guest that was paused: such a guest is not interrupted. */
const NO_DOWNTIME: Downtime = {
  totalMs: 0,
  lastPagesMs: 0,
  deviceStateMs: 0,
  loadMs: 0,
  verifyMs: 0,
  commitMs: 0,
  clockErrorMs: 0,
};

const ratio = (before: number, after: number): number => (after === 0 ? 0 : before / after);
