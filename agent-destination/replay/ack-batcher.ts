/**
 * Decides which acknowledgements are sent: of those that come close together, only the last. Each acknowledgement is a
 * message of gRPC, which costs the source a tenth of a millisecond and more, as much as the frame that is acknowledged
 * (docs/design/credit-and-frames.md#acknowledgements). The source needs it only to know that there is room again.
 */
import { type Clock, systemClock, type Timer } from "../../shared/runtime/clock.ts";

/** Says that all frames up to `sequence` were written to QEMU. */
export interface Ack {
  readonly sequence: number;
  /** The length of the bodies of all frames up to `sequence`, as they were on the link, bytes. */
  readonly appliedBytes: number;
}

/**
 * The name of the limits within which an acknowledgement must be sent: "at once", "soon" or "late". PACES has the bytes
 * and the time of each.
 */
export type AckLimits = keyof typeof PACES;

interface Pace {
  /** An acknowledgement is sent at once when at least this many bytes were applied since the last one. */
  readonly bytes: number;
  /** How long an acknowledgement may wait, milliseconds. */
  readonly ms: number;
}

const PACES = {
  /** The limits for frames that are not pages: something waits for such a frame, often while the guest is stopped. */
  "at once": { bytes: 0, ms: 0 },
  /**
   * The limits for pages in post-copy, where little is in flight (docs/design/credit-and-frames.md#acknowledgements).
   */
  soon: { bytes: 192 << 10, ms: 4 },
  /**
   * The limits for pages before post-copy. The bytes are a quarter of the least credit that a source has
   * (agent-source/send/credit.ts).
   */
  late: { bytes: 512 << 10, ms: 8 },
} satisfies Record<string, Pace>;

/** Holds the latest acknowledgement back until it is due. */
export class AckBatcher {
  private readonly send: (ack: Ack) => void;
  /** The latest acknowledgement, until it is sent. */
  private waiting: Ack | undefined;
  private readonly clock: Clock;
  private timer: Timer | undefined;
  /** The `appliedBytes` of the acknowledgement that was sent last. */
  private sentBytes = 0;

  constructor(send: (ack: Ack) => void, clock: Clock = systemClock) {
    this.send = send;
    this.clock = clock;
  }

  /** Takes the acknowledgement of a frame that was written to QEMU. */
  applied(ack: Ack, haste: AckLimits): void {
    const { bytes, ms } = PACES[haste];
    this.waiting = ack;
    if (ack.appliedBytes - this.sentBytes >= bytes) this.flush();
    else this.timer ??= this.clock.after(ms, () => this.flush());
  }

  /** Drops the acknowledgement that waits, because the source begins its stream again. */
  forget(): void {
    this.waiting = undefined;
    this.sentBytes = 0;
    this.flush();
  }

  private flush(): void {
    this.clock.cancel(this.timer);
    this.timer = undefined;
    if (this.waiting === undefined) return;
    const ack = this.waiting;
    this.waiting = undefined;
    this.sentBytes = ack.appliedBytes;
    this.send(ack);
  }
}
