/**
 * Which acknowledgements go: the last of those that come close together. Each is a message of gRPC of its own, which costs the source a
 * tenth of a millisecond and more, as much as the frame (docs/decisions/0033); it needs them only to know that there is room again.
 */

export interface Ack {
  readonly sequence: number;
  readonly appliedBytes: number;
}

/** So much of the link is acknowledged late at most: a quarter of the least credit that a source has (credit.ts). */
const BYTES = 512 << 10;
/** And for so long. */
const LATE_MS = 8;

export class AckPace {
  private readonly send: (ack: Ack) => void;
  private waiting: Ack | undefined;
  private timer: NodeJS.Timeout | undefined;
  private sentBytes = 0;

  constructor(send: (ack: Ack) => void) {
    this.send = send;
  }

  /** @param atOnce somebody waits for it: little is on its way, or the guest is stopped */
  applied(ack: Ack, atOnce: boolean): void {
    this.waiting = ack;
    if (atOnce || ack.appliedBytes - this.sentBytes >= BYTES) this.flush();
    else this.timer ??= setTimeout(() => this.flush(), LATE_MS);
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
