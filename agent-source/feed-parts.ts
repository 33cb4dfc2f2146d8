/** What a feed is made of, and what is worked out of it. */
import type { ResumingSource } from "../shared/link/resuming-source.ts";
import type { Contract, RamBlock } from "../shared/protocol/messages.ts";
import type { StreamLayout } from "../shared/protocol/ownership.ts";
import type { QmpClient } from "../shared/qemu/qmp-client.ts";
import { PAGE_SIZE } from "../shared/units.ts";
import type { SourceContext } from "./source-context.ts";
import type { Observation } from "./switch-policy.ts";

export interface FeedParts {
  readonly cx: SourceContext;
  readonly qmp: QmpClient;
  /** Of the guest, as QMP named them. */
  readonly ramBlocks: readonly RamBlock[];
  readonly contract: FeedContract;
  readonly channel: ResumingSource;
  /** Post-copy is taken up with this layout: QEMU goes on where its stream broke, or sends everything again. */
  readonly resumed?: StreamLayout & { readonly from: "break" | "start" };
}

/** What a feed needs to know of the contract. */
export type FeedContract = Pick<Contract, "codecs" | "frameBytes" | "creditWindowBytes" | "strategy" | "postcopy">;

export const pageCountOf = (ramBlocks: readonly RamBlock[]): number =>
  ramBlocks.reduce((sum, block) => sum + block.byteLength / PAGE_SIZE, 0);

/** Once for each change: a migration may stay stalled for hours. */
export function logStall(cx: SourceContext, stalled: boolean, estimatedDowntimeMs: number, seen: Observation): void {
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

export function schedulerOptions({ cx, ramBlocks, contract }: FeedParts) {
  return {
    pageCount: pageCountOf(ramBlocks),
    delta: contract.codecs.includes("xbzrle"),
    reorder: cx.call.options.reorder,
    pendingSlots: Math.floor(cx.config.memory.arenaBytes / PAGE_SIZE),
    baseSlots: Math.floor(cx.config.memory.baseCacheBytes / PAGE_SIZE),
    frameBytes: contract.frameBytes,
  };
}
