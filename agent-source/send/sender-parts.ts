/** What the sender of frames is made of. */
import type { CompressionChooser } from "../../shared/codec/chooser.ts";
import type { MigrationFault } from "../../shared/fault.ts";
import type { SourceChannel } from "../../shared/link/link.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { Address } from "../../shared/units.ts";
import type { LinkMeter } from "../link/link-meter.ts";
import type { Pacer } from "./pacer.ts";
import type { KindCounts, PrecopyScheduler } from "./precopy-scheduler.ts";
import type { FrameBuffer } from "./source-memory.ts";

/** Compresses [from, from + length) to [to, to + limit); -1 when it does not fit. */
export type Compress = (from: number, length: number, to: number, limit: number, level: number) => Promise<number>;

/** Makes the frames of pages of post-copy (postcopy-scheduler.ts). */
export interface UrgentSource {
  /** Of the frame that was made last. */
  readonly frame: KindCounts;
  readonly frameBytes: number;
  readonly isEmpty: boolean;
  /** Of the guest so far. */
  readonly requests: number;
  /** The guest waits for pages that are here. */
  readonly hasUrgent: boolean;
  /** Builds a frame of those pages, or of any; @returns its length, 0 when there is nothing to send */
  fillUrgent(at: Address): number;
  fill(at: Address): number;
}

export interface SenderParts {
  readonly kernels: PageKernels;
  readonly buffers: readonly FrameBuffer[];
  readonly frameBytes: number;
  readonly scheduler: PrecopyScheduler;
  readonly channel: SourceChannel;
  readonly compress: Compress;
  readonly chooser: CompressionChooser;
  readonly meter: LinkMeter;
  readonly pacer: Pacer;
  readonly clock: Clock;
  /** Most bytes in flight by contract. */
  readonly creditWindowBytes: number;
  /** Called with the length of each frame that is given to the channel. */
  readonly onSent: (bytes: number) => void;
  /** Called when pages left the arena, so that capture may go on. */
  readonly onRoom: () => void;
  readonly onFault: (fault: MigrationFault) => void;
}
