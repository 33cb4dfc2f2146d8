/**
 * Counts what is on its way to the destination, and tells whether the credit (credit.ts) allows more. Acknowledgements
 * make room again.
 */
import { MigrationFault } from "../../shared/fault.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { LinkMeter } from "../link/link-meter.ts";
import { deepCredit, shallowCredit } from "./credit.ts";

export interface InFlightOptions {
  readonly meter: LinkMeter;
  readonly clock: Clock;
  /** The most bytes in flight that the contract allows. */
  readonly creditWindowBytes: number;
}

export class InFlight {
  /** How many encoded bytes were given to the channel. */
  sentBytes = 0;
  /** How many of the `sentBytes` were acknowledged. */
  ackedBytes = 0;
  /**
   * How many zero pages are in frames that were sent and not acknowledged. A zero page takes next to no bytes, but it
   * takes the destination's QEMU about 1 microsecond (docs/design/page-order-and-bases.md#zero-pages).
   */
  zeroPages = 0;
  /** How many encoded bytes the frames that are being compressed are expected to have. */
  encodingBytes = 0;
  /** True in post-copy once the guest has got going (FrameSource.isUnderWay). */
  isUnderWay = false;
  private readonly parts: InFlightOptions;
  private ackedSequence = 0;
  /** Frames with zero pages that were sent and not acknowledged, oldest first. */
  private zeroFrames: { readonly sequence: number; readonly pages: number }[] = [];
  /** True if the sender has had to wait for credit since the last acknowledgement. */
  private wasFull = false;
  /** The length of frames while the credit is shallow, bytes; 0 while it is deep. */
  private shallowBytes = 0;
  /** Resolved when no more than the credit is on its way. */
  private waiters: (() => void)[] = [];

  constructor(parts: InFlightOptions) {
    this.parts = parts;
  }

  /** How many encoded bytes use up credit: those in flight, and those that are being compressed. */
  get bytes(): number {
    return this.sentBytes - this.ackedBytes + this.encodingBytes;
  }

  /**
   * @returns true if there is credit for another frame. If there is none, this is noted, so that the rate that is
   *   measured next counts as the rate of a full link
   */
  hasRoom(): boolean {
    if (this.bytes < this.creditBytes) return true;
    this.wasFull = true;
    return false;
  }

  /**
   * Makes the credit shallow. Resolves when no more than this credit is on its way.
   * @param frameBytes the length of later frames, bytes
   */
  beShallow(frameBytes: number): Promise<void> {
    this.shallowBytes = frameBytes;
    if (this.bytes <= this.creditBytes) return Promise.resolve();
    return new Promise((resolve) => this.waiters.push(resolve));
  }

  /** Notes a frame that was given to the channel. */
  sent(sequence: number, byteLength: number, zeroPages: number): void {
    this.sentBytes += byteLength;
    if (zeroPages === 0) return;
    this.zeroPages += zeroPages;
    this.zeroFrames.push({ sequence, pages: zeroPages });
  }

  /**
   * Takes an acknowledgement of all frames up to number `sequence`, and of `appliedBytes` bytes in all.
   * @param lastSequence the number of the last frame that was made
   * @throws MigrationFault `peer-invalid` when it acknowledges what was never sent, or less than an earlier one did
   */
  acknowledge(sequence: number, appliedBytes: number, lastSequence: number): void {
    if (sequence < this.ackedSequence || sequence > lastSequence || appliedBytes < this.ackedBytes)
      throw new MigrationFault(
        "peer-invalid",
        `The destination acknowledged frame ${sequence} and ${appliedBytes} bytes in all; before, it had acknowledged frame ${this.ackedSequence} and ${this.ackedBytes} bytes, and the last frame that was made is ${lastSequence}`,
      );
    if (appliedBytes > this.sentBytes)
      throw new MigrationFault(
        "peer-invalid",
        `The destination acknowledged ${appliedBytes} bytes, but only ${this.sentBytes} were sent`,
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

  /** Resolves what beShallow() has returned. */
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
