/**
 * Chooses the zstd level of the next frame: the strongest that still keeps the link full, and none where the link
 * outruns even the weakest (docs/design/compression.md). A fixed level makes migrations over fast links slower: xapi
 * measured evacuations that took 11 to 36 % longer (xapi-project/xen-api#4797). The *workers* are the threads to which
 * the sender hands frames for compression.
 *
 * While the host has no idle processor, levels above START are given up. The link may look full then only because this
 * agent, or the agent at the other end, waits for a processor.
 *
 * Everything here is pure: the chooser is told what each frame cost, and is asked for the level of the next one.
 */

import { CompressionTrial } from "./compression-trial.ts";

/**
 * The levels that may be chosen, weakest first. Their speeds and ratios are in docs/results/micro.md and
 * docs/design/compression.md#the-ladder.
 */
export const CHOICES: readonly number[] = [-20, -8, 1, 3];
/** Index in CHOICES of the level that a migration begins with. */
const START = 1;
/** How many frames are compressed between two changes of the level. */
const SETTLE_FRAMES = 12;
/**
 * One side, the link or the workers, counts as the bottleneck when the sender waited for it more than this many times
 * as often as for the other side.
 */
const CLEARLY = 2;
/**
 * Below this number of idle processors, the host has no processor to spare for a level above START
 * (docs/design/compression.md#idle-processors).
 */
const SCARCE = 0.5;
/**
 * The link outruns the weakest level when it carries more than this many times the raw bytes that the workers compress
 * in the same time.
 */
const OUTRUNS = 1.5;
/**
 * On a link that outruns the weakest level, one of this many frames is compressed all the same, to see how fast the
 * workers are now.
 */
const TRY_AGAIN_FRAMES = 64;

export interface FrameCost {
  readonly rawBytes: number;
  readonly encodedBytes: number;
  /**
   * How long the workers took, microseconds: since the frame was handed to them, or since the frame before it came
   * back, whichever was later.
   */
  readonly micros: number;
}

export class CompressionChooser {
  private readonly fixed: number | undefined;
  private readonly enabled: boolean;
  /** How often the sender has waited for a worker since the level was decided last. */
  private encoderWaits = 0;
  /** How often the sender has waited for the link since the level was decided last. */
  private linkWaits = 0;
  /** Index in CHOICES of the present level. */
  private step = START;
  private frames = 0;
  /** Raw bytes over encoded bytes of the frames that were compressed lately. */
  private ratio = 1;
  /** Raw bytes per second that the workers have compressed lately; 0 before the first frame. */
  private speed = 0;
  /** How many times level() was called while the link outran the weakest level. */
  private without = 0;
  private readonly trial = new CompressionTrial();

  private readonly idleProcessors: () => number | undefined;

  /**
   * @param setting "auto", "off" or a zstd level
   * @param idleProcessors tells how many processors of the host were idle lately; undefined when that is not known, or
   *   when the link is at its peak
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

  /**
   * Returns the level of the next frame, or undefined for no compression.
   * @param linkBytesPerSecond the rate of the link as it was measured lately
   */
  level(linkBytesPerSecond: number): number | undefined {
    if (!this.enabled) return undefined;
    if (this.fixed !== undefined) return this.fixed;
    if (this.trial.without) return undefined;
    // above the weakest level only note() changes the level, by how often the sender has waited for the link and for
    // the workers; the rate of the link counts only at the weakest level
    if (this.step > 0 || linkBytesPerSecond <= OUTRUNS * this.speed || this.speed === 0) return CHOICES[this.step];
    if (++this.without % TRY_AGAIN_FRAMES === 0) return CHOICES[0];
    return undefined;
  }

  /** How many frames were compressed so far. */
  get compressedFrames(): number {
    return this.frames;
  }

  /**
   * Raw bytes over encoded bytes of the frames that were compressed lately; 1 while CompressionTrial lets no frame be
   * compressed.
   */
  get recentRatio(): number {
    return this.trial.without ? 1 : this.ratio;
  }

  /**
   * Notes that a frame of pages was made.
   * @param rawBytes its bytes before compression
   * @param linkBytesPerSecond the most that the link carried lately
   */
  made(rawBytes: number, nowUs: number, linkBytesPerSecond: number): void {
    if (this.enabled && this.fixed === undefined)
      this.trial.made(rawBytes, nowUs, linkBytesPerSecond, () => this.isScarce());
  }

  /**
   * True when a frame of this size is likely to arrive sooner if it is compressed. The sender asks this only while the
   * guest is stopped, when every millisecond counts.
   */
  paysOff(rawBytes: number, linkBytesPerSecond: number): boolean {
    if (this.speed === 0) return rawBytes > 16384;
    const saved = (rawBytes - rawBytes / Math.max(1, this.ratio)) / Math.max(1, linkBytesPerSecond);
    return saved > rawBytes / this.speed;
  }

  /** Notes that the sender had to wait for the link. A stronger level would use that time. */
  linkWasFull(): void {
    this.linkWaits++;
  }

  /** Notes that the sender had to wait for a worker. The link could have carried more. */
  encoderWasFull(): void {
    this.encoderWaits++;
  }

  /**
   * Notes what compressing a frame took. After every SETTLE_FRAMES frames it may move the level up or down by one step.
   */
  note(cost: FrameCost): void {
    const ratio = cost.rawBytes / Math.max(1, cost.encodedBytes);
    const speed = (1e6 * cost.rawBytes) / Math.max(1, cost.micros);
    // this is a mean of encoded bytes over raw bytes: in a mean of the ratios, one frame that shrinks to almost nothing
    // would outweigh all others
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
