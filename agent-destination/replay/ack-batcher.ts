/**
 * Which acknowledgements go: the last of those that come close together. Each is a message of gRPC of its own, which costs the source a
 * tenth of a millisecond and more, as much as the frame (docs/decisions/0033); it needs them only to know that there is room again.
 */

export interface Ack {
  readonly sequence: number;
  readonly appliedBytes: number;
}

/** How late an acknowledgement may be. */
export type AckLimits = keyof typeof PACES;

interface Pace {
  /** So much of the link is acknowledged late at most. */
  readonly bytes: number;
  /** And for so long. */
  readonly ms: number;
}

const PACES = {
  /** Somebody waits for it: the guest is stopped. */
  "at once": { bytes: 0, ms: 0 },
  /** Little is on its way (docs/decisions/0036). */
  soon: { bytes: 192 << 10, ms: 4 },
  /** A quarter of the least credit that a source has (agent-source/send/credit.ts). */
  late: { bytes: 512 << 10, ms: 8 },
} satisfies Record<string, Pace>;

export class AckBatcher {
  private readonly send: (ack: Ack) => void;
  private waiting: Ack | undefined;
  private timer: NodeJS.Timeout | undefined;
  private sentBytes = 0;

  constructor(send: (ack: Ack) => void) {
    this.send = send;
  }

  applied(ack: Ack, haste: AckLimits): void {
    const { bytes, ms } = PACES[haste];
    this.waiting = ack;
    if (ack.appliedBytes - this.sentBytes >= bytes) this.flush();
    else this.timer ??= setTimeout(() => this.flush(), ms);
  }

  /** What waits holds no more: the source begins its stream anew. */
  forget(): void {
    this.waiting = undefined;
    this.sentBytes = 0;
    this.flush();
  }

  private flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.waiting === undefined) return;
    const ack = this.waiting;
    this.waiting = undefined;
    this.sentBytes = ack.appliedBytes;
    this.send(ack);
  }
}
