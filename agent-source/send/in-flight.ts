/** What is on its way to the destination, and how much may be: acknowledgements give room again. */
import { MigrationFault } from "../../shared/fault.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { LinkMeter } from "../link/link-meter.ts";
import { deepCredit, shallowCredit } from "./credit.ts";

export interface InFlightOptions {
  readonly meter: LinkMeter;
  readonly clock: Clock;
  /** Most bytes in flight by contract. */
  readonly creditWindowBytes: number;
}

export class InFlight {
  /** Encoded bytes given to the channel, and of those acknowledged. */
  sentBytes = 0;
  ackedBytes = 0;
  /** Zero pages in frames that were not acknowledged: next to no bytes, and each takes the destination's QEMU a while. */
  zeroPages = 0;
  /** Being compressed, as far as can be foretold. */
  encodingBytes = 0;
  /** In post-copy: the guest has got going. */
  isUnderWay = false;
  private readonly parts: InFlightOptions;
  private ackedSequence = 0;
  /** Frames with zero pages that were not acknowledged, oldest first, and how many they have. */
  private zeroFrames: { readonly sequence: number; readonly pages: number }[] = [];
  /** The sender had to wait for an acknowledgement since the last. */
  private wasFull = false;
  /** Frames' length while little may be on its way; 0: much may. */
  private shallowBytes = 0;
  private waiters: (() => void)[] = [];

  constructor(parts: InFlightOptions) {
    this.parts = parts;
  }

  get bytes(): number {
    return this.sentBytes - this.ackedBytes + this.encodingBytes;
  }

  /** Is there room for another frame? When not, the link is seen as full. */
  hasRoom(): boolean {
    if (this.bytes < this.creditBytes) return true;
    this.wasFull = true;
    return false;
  }

  /** From now on little is on its way. Resolves when that is so. @param frameBytes length of a frame */
  beShallow(frameBytes: number): Promise<void> {
    this.shallowBytes = frameBytes;
    if (this.bytes <= this.creditBytes) return Promise.resolve();
    return new Promise((resolve) => this.waiters.push(resolve));
  }

  /** A frame was given to the channel. */
  sent(sequence: number, byteLength: number, zeroPages: number): void {
    this.sentBytes += byteLength;
    if (zeroPages === 0) return;
    this.zeroPages += zeroPages;
    this.zeroFrames.push({ sequence, pages: zeroPages });
  }

  /**
   * An acknowledgement came.
   * @param lastSequence that was sent
   * @throws MigrationFault `peer-invalid` when it acknowledges what was never sent
   */
  acknowledge(sequence: number, appliedBytes: number, lastSequence: number): void {
    if (sequence < this.ackedSequence || sequence > lastSequence || appliedBytes < this.ackedBytes)
      throw new MigrationFault(
        "peer-invalid",
        `The destination acknowledged frame ${sequence} after ${this.ackedSequence}`,
      );
    if (appliedBytes > this.sentBytes)
      throw new MigrationFault(
        "peer-invalid",
        `The destination acknowledged ${appliedBytes} bytes of ${this.sentBytes}`,
      );
    this.ackedSequence = sequence;
    this.ackedBytes = appliedBytes;
    while (this.zeroFrames[0] !== undefined && this.zeroFrames[0].sequence <= sequence)
      this.zeroPages -= this.zeroFrames.shift()!.pages;
    const { meter, clock } = this.parts;
    meter.acknowledged(appliedBytes, clock.monotonicMs(), this.wasFull);
    this.wasFull = false;
    if (this.bytes <= this.creditBytes) this.stop();
  }

  /** Nobody waits any more. */
  stop(): void {
    for (const resolve of this.waiters.splice(0)) resolve();
  }

  private get creditBytes(): number {
    const { meter, creditWindowBytes } = this.parts;
    return this.shallowBytes > 0
      ? shallowCredit(meter, creditWindowBytes, this.shallowBytes, this.isUnderWay && !meter.isAtItsPeak)
      : deepCredit(meter, creditWindowBytes);
  }
}
