/** What one incoming migration has at hand in every state. */
import type { LinkLimits } from "../shared/link/link.ts";
import type { PageKernels } from "../shared/page/kernels.ts";
import type { HandshakeAnswer, Offer } from "../shared/protocol/messages.ts";
import type { DestinationRecord } from "../shared/protocol/ownership.ts";
import type { Clock } from "../shared/runtime/clock.ts";
import type { DestinationConfig } from "../shared/runtime/config.ts";
import type { Deferred } from "../shared/runtime/deferred.ts";
import type { Journal } from "../shared/runtime/journal.ts";
import type { Logger } from "../shared/runtime/log.ts";

export interface DestinationContext {
  readonly offer: Offer;
  readonly config: DestinationConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly journal: Journal<DestinationRecord>;
  readonly limits: LinkLimits;
  readonly createKernels: (byteLength: number) => PageKernels;
  /** The handshake's answer, once it is known. */
  readonly answer: Deferred<HandshakeAnswer>;
  /** Aborted when the agent stops; without effect once the guest was granted. */
  readonly stopping: AbortSignal;
  readonly cpuSecondsBefore: number;
}
