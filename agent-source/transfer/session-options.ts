/** What a session is made of, and what is worked out of it. */
import { frameBufferBytes } from "../../shared/codec/page-frame.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { Contract, RamBlock } from "../../shared/protocol/messages.ts";
import type { StreamLayout } from "../../shared/protocol/ownership.ts";
import type { MigrateCall, MigrateOptions } from "../../shared/protocol/report.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { SourceConfig } from "../../shared/runtime/config/config.ts";
import type { Logger } from "../../shared/runtime/log/log.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { Agreed } from "../guest/look-at-guest.ts";
import type { RunState } from "../guest/run-state.ts";
import type { Observation } from "../switchover/switch-policy.ts";

/** What a session needs to know of its migration. */
export interface SessionContext {
  readonly id: string;
  readonly call: MigrateCall;
  readonly config: SourceConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly createKernels: (byteLength: number) => PageKernels;
  /** Aborted with the fault when the operator cancels or the agent stops. */
  readonly cancelled: AbortSignal;
}

/** What its parts are made with; a rehearsal has these without a guest. */
export interface BuildOptions {
  readonly cx: Pick<SessionContext, "config" | "call" | "clock" | "log" | "createKernels">;
  /** Of the guest, as QMP named them. */
  readonly ramBlocks: readonly RamBlock[];
  readonly contract: SessionContract;
  readonly channel: ResumingSource;
  readonly runs: Pick<RunState, "standsStill">;
  /** Post-copy is taken up with this layout: QEMU goes on where its stream broke, or sends everything again. */
  readonly resumed?: StreamLayout & { readonly from: "break" | "start" };
}

export interface SessionOptions extends BuildOptions {
  readonly cx: SessionContext;
  readonly qmp: QmpClient;
  readonly runs: RunState;
  /** The devices and disks that the destination has accepted; missing where they are not compared again. */
  readonly agreed?: Agreed;
  /** The guest was found paused. */
  readonly paused: boolean;
  /** Called when the link is cut, until `signal` is aborted: told when the destination will not dial again. */
  readonly onCut: (signal: AbortSignal, onGone: (fault: MigrationFault) => void) => void;
}

/** What a session needs to know of the contract. */
export type SessionContract = Pick<
  Contract,
  "protocolVersion" | "codecs" | "frameBytes" | "creditWindowBytes" | "strategy" | "postcopy" | "onDeadline"
>;

/** Part of the arena that held pages may fill. */
export const HOLD_SHARE_OF_ARENA = 0.5;

/**
 * Room beside the arena, as a fraction of the arena. Post-copy finds this room however full the arena is when post-copy
 * begins. A page for which the guest waits comes out of QEMU after pages for which nobody waits, and none of these
 * pages leaves before the guest runs. Room for 1024 pages was too little in one of three migrations.
 */
const POSTCOPY_RESERVE_OF_ARENA = 0.25;

/** Frames that may be on their way beyond the credit window: those being compressed when it closed. */
const OVERSHOOT_FRAMES = 12;

/** Of frames that were sent and not acknowledged, at most. */
export const retainedBytes = ({ creditWindowBytes, frameBytes }: SessionContract): number =>
  creditWindowBytes + OVERSHOOT_FRAMES * frameBufferBytes(frameBytes);

export const pageCountOf = (ramBlocks: readonly RamBlock[]): number =>
  ramBlocks.reduce((sum, block) => sum + block.byteLength / PAGE_SIZE, 0);

/** @throws MigrationFault `stream-unsupported` when a block of QEMU's stream is not one that its monitor named */
export function checkBlocks(
  blocks: readonly { readonly name: string; readonly byteLength: number }[],
  expected: readonly RamBlock[],
): void {
  for (const { name, byteLength } of blocks)
    if (expected.find((one) => one.name === name)?.byteLength !== byteLength)
      throw new MigrationFault(
        "stream-unsupported",
        `QEMU's stream has RAM block ${name} of ${byteLength} bytes, which its monitor did not name so`,
      );
}

/** Once for each change: a migration may stay stalled for hours. */
export function logStall(
  cx: BuildOptions["cx"],
  stalled: boolean,
  estimatedDowntimeMs: number,
  seen: Observation,
): void {
  const { downtimeTargetMs } = cx.call.options;
  const { bytesPerSecond, residualPages } = seen;
  const figures = {
    estimatedDowntimeMs: Math.round(estimatedDowntimeMs),
    downtimeTargetMs,
    bytesPerSecond,
    residualPages,
  };
  if (stalled) cx.log.warn(figures, "not converging");
  else cx.log.info(figures, seen.linkIsDown ? "not converging is over: the link is down" : "converging again");
}

/**
 * Post-copy's head start is over before its first pass is, and behind it nothing refers to a base: each would be memory
 * that is touched for nothing (docs/decisions/0040). What the bases do not take is there for what is pending.
 */
const sendsOnce = ({ strategy }: Pick<SessionContract, "strategy">): boolean => strategy === "postcopy";

interface SchedulerParts extends Pick<BuildOptions, "ramBlocks" | "contract"> {
  readonly cx: {
    readonly config: Pick<SourceConfig, "memory">;
    readonly call: { readonly options: Pick<MigrateOptions, "reorder"> };
  };
}

export function schedulerOptions({ cx, ramBlocks, contract }: SchedulerParts) {
  const pendingSlots = Math.floor(cx.config.memory.arenaBytes / PAGE_SIZE);
  const baseSlots = Math.floor(cx.config.memory.baseCacheBytes / PAGE_SIZE);
  const reserveSlots = contract.postcopy ? Math.ceil(POSTCOPY_RESERVE_OF_ARENA * pendingSlots) : 0;
  return {
    pageCount: pageCountOf(ramBlocks),
    delta: contract.codecs.includes("xbzrle") && !sendsOnce(contract),
    reorder: cx.call.options.reorder,
    pendingSlots,
    baseSlots,
    reserveSlots: sendsOnce(contract) ? Math.max(baseSlots, reserveSlots) : reserveSlots,
    frameBytes: contract.frameBytes,
  };
}
