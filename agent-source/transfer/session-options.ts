/** What a session and its parts are given, and the sizes and checks that follow from this. */
import { frameBufferBytes } from "../../shared/codec/page-frame.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import { pageCountOf } from "../../shared/page/geometry.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { Contract, RamBlock } from "../../shared/protocol/messages.ts";
import type { StreamLayout } from "../../shared/protocol/ownership.ts";
import type { MigrateCall, MigrateOptions } from "../../shared/protocol/report.ts";
import { isPostcopy } from "../../shared/protocol/strategies.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { SourceConfig } from "../../shared/runtime/config/config.ts";
import type { Logger } from "../../shared/runtime/log/log.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { Agreed } from "../guest/look-at-guest.ts";
import type { RunState } from "../guest/run-state.ts";
import type { KeptMemory } from "../send/kept-memory.ts";
import type { Observation } from "../switchover/observation.ts";

/** What a session needs to know of its migration. */
interface SessionContext {
  readonly id: string;
  readonly call: MigrateCall;
  readonly config: SourceConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly createKernels: (byteLength: number) => PageKernels;
  /** Keeps the memory of sessions. @default none is kept */
  readonly keptMemory?: KeptMemory;
  /** Aborted with the fault when the operator cancels or the agent stops. */
  readonly cancelled: AbortSignal;
}

/** What the parts of a session are built from. The warm-up has these without a guest. */
export interface BuildOptions {
  readonly cx: Pick<SessionContext, "config" | "call" | "clock" | "log" | "createKernels" | "keptMemory">;
  /** The RAM blocks of the guest, as QMP named them. */
  readonly ramBlocks: readonly RamBlock[];
  readonly contract: SessionContract;
  readonly channel: ResumingSource;
  readonly runs: Pick<RunState, "standsStill">;
  /**
   * Given if a broken post-copy goes on: the layout of its stream, and whether QEMU goes on where the stream broke
   * (`break`) or sends everything again (`start`).
   */
  readonly resumed?: StreamLayout & { readonly from: "break" | "start" };
}

export interface SessionOptions extends BuildOptions {
  readonly cx: SessionContext;
  readonly qmp: QmpClient;
  readonly runs: RunState;
  /**
   * The devices and disks that the destination has accepted, with which those of the guest are compared again once it
   * stands still; missing where a broken post-copy goes on.
   */
  readonly agreed?: Agreed;
  /** True if the guest was found paused. */
  readonly paused: boolean;
  /** Called with what the operator should know of how the copy will go on; with an empty text when that is over. */
  readonly onOutlook: (outlook: string) => void;
  /**
   * Called when the link is cut. Until `signal` is aborted or the link is back, this function asks whether the
   * destination will dial again, and calls `onGone` if the destination will not.
   */
  readonly onCut: (signal: AbortSignal, onGone: (fault: MigrationFault) => void) => void;
}

/** What a session needs to know of the contract. */
export type SessionContract = Pick<
  Contract,
  "protocolVersion" | "codecs" | "frameBytes" | "creditWindowBytes" | "strategy" | "postcopy" | "onDeadline"
>;

/** The fraction of the arena that held pages may fill. If they filled all of it, nothing would make room again. */
export const HOLD_SHARE_OF_ARENA = 0.5;

/**
 * Room beside the arena, as a fraction of the arena. Post-copy finds this room however full the arena is when post-copy
 * begins. A page for which the guest waits comes out of QEMU after pages for which the guest does not wait, and none of
 * the pages before it leaves the arena before the guest runs. With too little room the guest's start takes 2 s; room
 * for 1024 pages was too little in one of three migrations
 * (docs/design/page-order-and-bases.md#bases-and-room-in-post-copy).
 */
const POSTCOPY_RESERVE_OF_ARENA = 0.25;

/**
 * How many frames may be in flight beyond the credit window: the frames that were being compressed when the window was
 * used up.
 */
const OVERSHOOT_FRAMES = 12;

/** @returns the most bytes that the frames in flight may have; these are kept until they are acknowledged */
export const retainedBytes = ({ creditWindowBytes, frameBytes }: SessionContract): number =>
  creditWindowBytes + OVERSHOOT_FRAMES * frameBufferBytes(frameBytes);

/**
 * @throws MigrationFault `stream-unsupported` when QEMU's stream has a block that QEMU's monitor did not list with its
 *   length
 */
export function checkBlocks(
  blocks: readonly { readonly name: string; readonly byteLength: number }[],
  expected: readonly RamBlock[],
): void {
  for (const { name, byteLength } of blocks)
    if (expected.find((one) => one.name === name)?.byteLength !== byteLength)
      throw new MigrationFault(
        "stream-unsupported",
        `QEMU's stream has RAM block ${name} of ${byteLength} bytes, which QEMU's monitor does not list with this length`,
      );
}

/**
 * Logs that a migration does not converge, or that it converges again. To be called only when that changes, because a
 * migration may stay stalled for hours.
 */
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
  else
    cx.log.info(
      figures,
      seen.linkIsDown ? "the link is down: convergence is not judged meanwhile" : "converging again",
    );
}

/**
 * @returns true if no page is sent twice, so that bases are useless. With the strategy `postcopy` the head start of
 *   precopy ends before the first pass does, and from then on each page is sent in full. Bases would be memory that is
 *   touched for nothing (docs/design/page-order-and-bases.md#bases-and-room-in-post-copy); pending pages may use that
 *   memory instead
 */
const sendsOnce = ({ strategy }: Pick<SessionContract, "strategy">): boolean => strategy === "postcopy";

interface SchedulerParts extends Pick<BuildOptions, "ramBlocks" | "contract"> {
  readonly cx: {
    readonly config: Pick<SourceConfig, "memory">;
    readonly call: { readonly options: Pick<MigrateOptions, "reorder"> };
  };
}

/** The most slots of arena, bases and reserve, so that the buffers find room beside them in the 4 GiB of one memory. */
const SLOTS_MAX = (2 ** 32 - 2 ** 28) / PAGE_SIZE;

/**
 * @returns how many slots are kept in reserve for post-copy. Where post-copy only may follow (`auto`), the reserve is
 *   no larger than the room that the memory has: precopy does without it
 */
function reserveOf({ postcopy, strategy, onDeadline }: SessionContract, pending: number, bases: number): number {
  if (!postcopy) return 0;
  const wanted = Math.ceil(POSTCOPY_RESERVE_OF_ARENA * pending);
  if (isPostcopy(strategy) || onDeadline === "postcopy") return wanted;
  return Math.min(wanted, Math.max(0, SLOTS_MAX - pending - bases));
}

/** @returns the options of the PrecopyScheduler, with its budgets in slots of one page */
export function schedulerOptions({ cx, ramBlocks, contract }: SchedulerParts) {
  const pendingSlots = Math.floor(cx.config.memory.arenaBytes / PAGE_SIZE);
  const baseSlots = Math.floor(cx.config.memory.baseCacheBytes / PAGE_SIZE);
  const reserveSlots = reserveOf(contract, pendingSlots, baseSlots);
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
