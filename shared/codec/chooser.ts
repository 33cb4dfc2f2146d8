/**
 * Which zstd level the next frame gets: the highest that still keeps the link full, and none where the link outruns it
 * (xapi measured evacuations 11 to 36 % slower with a fixed level on fast links, facts/field-and-peers.md). No strong one where the
 * host has no processor left: what looks like a full link is then whoever waits for a processor at the other end of it, or here.
 * Pure: told what each frame cost, asked for the next one.
 */

import { CompressionTrial } from "./compression-trial.ts";

/** Weakest first (speeds and ratios in facts/node-measurements.md 5). */
export const CHOICES: readonly number[] = [-20, -8, 1, 3];
const START = 1;
/** Frames between two changes of the level. */
const SETTLE_FRAMES = 12;
/** One side must have been the narrow one this much more often than the other. */
const CLEARLY = 2;
/** Idle processors below which there is none left for a stronger level than the one that it begins with (docs/decisions/0040). */
const SCARCE = 0.5;
/** The link outruns the weakest level when it takes this much more than what a worker reads. */
const OUTRUNS = 1.5;
/** Frames without compression until one is compressed again, to see what a worker does now. */
const TRY_AGAIN_FRAMES = 64;

export interface FrameCost {
  readonly rawBytes: number;
  readonly encodedBytes: number;
  /** Time that a worker took, microseconds. */
  readonly micros: number;
}

export class CompressionChooser {
  private readonly fixed: number | undefined;
  private readonly enabled: boolean;
  private encoderWaits = 0;
  private linkWaits = 0;
  private step = START;
  private frames = 0;
  private ratio = 1;
  /** Raw bytes per second of one worker, lately. */
  private speed = 0;
  /** Frames that went without, since one was compressed. */
  private without = 0;
  private readonly trial = new CompressionTrial();

  private readonly idleProcessors: () => number | undefined;

  /**
   * @param setting "auto", "off" or a zstd level
   * @param idleProcessors of the host, lately; undefined: not known
   */
  constructor(
    setting: "auto" | "off" | number,
    workers: number,
    idleProcessors: () => number | undefined = () => undefined,
  ) {
    this.idleProcessors = idleProcessors;
    this.fixed = typeof setting === "number" ? setting : undefined;
    this.enabled = setting !== "off" && workers > 0;
  }

  /** The level of the next frame, or undefined for none. @param linkBytesPerSecond as measured */
  level(linkBytesPerSecond: number): number | undefined {
    if (!this.enabled) return undefined;
    if (this.fixed !== undefined) return this.fixed;
    if (this.trial.without) return undefined;
    // stronger levels are given up first, by who waits for whom: that needs no figure of the link's
    if (this.step > 0 || linkBytesPerSecond <= OUTRUNS * this.speed || this.speed === 0) return CHOICES[this.step];
    if (++this.without % TRY_AGAIN_FRAMES === 0) return CHOICES[0];
    return undefined;
  }

  /** Frames that were compressed so far. */
  get compressedFrames(): number {
    return this.frames;
  }

  /** Raw bytes over encoded bytes, lately; 1 when nothing is compressed. */
  get recentRatio(): number {
    return this.trial.without ? 1 : this.ratio;
  }

  /** A frame of pages was made, of so many bytes before compression. @param linkBytesPerSecond the most that it carried lately */
  made(rawBytes: number, nowUs: number, linkBytesPerSecond: number): void {
    if (this.enabled && this.fixed === undefined)
      this.trial.made(rawBytes, nowUs, linkBytesPerSecond, () => this.isScarce());
  }

  /** Is a frame of this size worth compressing when the guest is stopped and every millisecond counts? */
  paysOff(rawBytes: number, linkBytesPerSecond: number): boolean {
    if (this.speed === 0) return rawBytes > 16384;
    const saved = (rawBytes - rawBytes / Math.max(1, this.ratio)) / Math.max(1, linkBytesPerSecond);
    return saved > rawBytes / this.speed;
  }

  /** The sender had to wait for the link: a stronger level would use the time. */
  linkWasFull(): void {
    this.linkWaits++;
  }

  /** The sender had to wait for a worker: the link could have taken more. */
  encoderWasFull(): void {
    this.encoderWaits++;
  }

  note(cost: FrameCost): void {
    const ratio = cost.rawBytes / Math.max(1, cost.encodedBytes);
    const speed = (1e6 * cost.rawBytes) / Math.max(1, cost.micros);
    // the mean of what a byte becomes, not of the ratios: one frame of almost nothing would make all the others vanish
    this.ratio = this.frames === 0 ? ratio : 1 / (0.8 / this.ratio + 0.2 / ratio);
    this.speed = this.speed === 0 ? speed : 0.8 * this.speed + 0.2 * speed;
    this.frames++;
    if (this.fixed !== undefined || this.frames % SETTLE_FRAMES !== 0) return;
    this.step += this.direction();
    this.encoderWaits = 0;
    this.linkWaits = 0;
  }

  private isScarce(): boolean {
    return (this.idleProcessors() ?? Number.POSITIVE_INFINITY) < SCARCE;
  }

  private direction(): -1 | 0 | 1 {
    const isScarce = this.isScarce();
    if (isScarce && this.step > START) return -1;
    if (this.encoderWaits > CLEARLY * this.linkWaits) return this.step > 0 ? -1 : 0;
    const mayRise = this.step < (isScarce ? START : CHOICES.length - 1);
    return this.linkWaits > CLEARLY * this.encoderWaits && mayRise ? 1 : 0;
  }
}
