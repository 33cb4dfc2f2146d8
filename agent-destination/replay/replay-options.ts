/** What a Replay is given. */
import type { Socket } from "node:net";
import type { MigrationFault } from "../../shared/fault.ts";
import type { DestinationChannel } from "../../shared/link/link.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { Contract } from "../../shared/protocol/messages.ts";
import type { Clock } from "../../shared/runtime/clock.ts";

/** The parts of a Replay. */
export interface ReplayOptions {
  readonly createKernels: (byteLength: number) => PageKernels;
  readonly contract: Pick<Contract, "frameBytes" | "creditWindowBytes" | "codecs" | "ramBlocks" | "postcopy">;
  readonly channel: DestinationChannel;
  readonly socket: Socket;
  readonly clock: Clock;
  /** Takes a fault that arises when QEMU has taken bytes, outside of a call of take(). */
  readonly onFault: (fault: MigrationFault) => void;
  /** True for a test of `--verify`: one byte of the first full page is then changed, after all checks. */
  readonly corruptPage: boolean;
}
