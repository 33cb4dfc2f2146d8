/** What the sender of frames is made of. */
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

/** Compresses [from, from + length) to [to, to + limit); -1 when it does not fit. */
export type Compress = (from: number, length: number, to: number, limit: number, level: number) => Promise<number>;

export interface SenderParts {
  readonly kernels: PageKernels;
  readonly buffers: readonly FrameBuffer[];
  readonly frameBytes: number;
  /** Where pages come from at first. */
  readonly source: FrameSource;
  /** The pages that wait to be sent. */
  readonly pages: Pick<PageStore, "pendingCount">;
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
