/** The parts that a FrameSender is given. */
import type { CompressionChooser } from "../../shared/codec/chooser.ts";
import type { MigrationFault } from "../../shared/fault.ts";
import type { SourceChannel } from "../../shared/link/link.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { PageStore } from "../../shared/page/page-store.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { LinkMeter } from "../link/link-meter.ts";
import type { FrameSource } from "./frame-source.ts";
import type { Pacer } from "./pacer.ts";
import type { FrameBuffer } from "./source-memory.ts";

/**
 * Compresses [from, from + length) of the migration's memory with zstd, to [to, to + limit) of the same memory.
 * @param level zstd's level of compression
 * @returns how many bytes were written; -1 if `limit` bytes are too few
 */
export type Compress = (from: number, length: number, to: number, limit: number, level: number) => Promise<number>;

export interface SenderParts {
  readonly kernels: PageKernels;
  readonly buffers: readonly FrameBuffer[];
  /** The most verbatim bytes that one frame takes. */
  readonly frameBytes: number;
  /** Where pages come from until takeFrom() is called. */
  readonly source: FrameSource;
  /** The pages that are pending, whichever source sends them. */
  readonly pages: Pick<PageStore, "pendingCount">;
  readonly channel: SourceChannel;
  readonly compress: Compress;
  readonly chooser: CompressionChooser;
  readonly meter: LinkMeter;
  readonly pacer: Pacer;
  readonly clock: Clock;
  /** The most bytes in flight that the contract allows. */
  readonly creditWindowBytes: number;
  /** Called with the length of each frame that is given to the channel. */
  readonly onSent: (bytes: number) => void;
  /** Called when pages have left the arena, so that the capture may go on. */
  readonly onRoom: () => void;
  readonly onFault: (fault: MigrationFault) => void;
}
