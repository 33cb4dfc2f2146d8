/**
 * Which zstd level the next frame gets: the highest that still keeps the link full, and none where the link outruns it
 * (xapi measured evacuations 11 to 36 % slower with a fixed level on fast links, facts/field-and-peers.md).
 * Pure: told what each frame cost, asked for the next one.
 */

/** Weakest first. Each step costs about half the speed of the one before (facts/node-measurements.md 5). */
const LADDER: readonly number[] = [-50, -5, 1, 3];
const START = 2;
/** Frames between two changes of the level. */
const SETTLE_FRAMES = 12;
/** A level that compresses this much faster than the link takes may be followed by the next stronger one. */
const SPARE_TO_RAISE = 2.6;

export interface FrameCost {
  readonly rawBytes: number;
  readonly encodedBytes: number;
  /** Time that a worker took, microseconds. */
  readonly micros: number;
}

export class CompressionChooser {
  private readonly fixed: number | undefined;
  private readonly workers: number;
  private enabled: boolean;
  private step = START;
  private frames = 0;
  private ratio = 1;
  /** Raw bytes per second of one worker, lately. */
  private speed = 0;

  /** @param setting "auto", "off" or a zstd level */
  constructor(setting: "auto" | "off" | number, workers: number) {
    this.fixed = typeof setting === "number" ? setting : undefined;
    this.enabled = setting !== "off" && workers > 0;
    this.workers = workers;
  }

  /** The level of the next frame, or undefined for none. */
  level(): number | undefined {
    if (!this.enabled) return undefined;
    return this.fixed ?? LADDER[this.step];
  }

  /** Raw bytes over encoded bytes, lately; 1 when nothing was compressed. */
  get recentRatio(): number {
    return this.ratio;
  }

  /** Is a frame of this size worth compressing when the guest is stopped and every millisecond counts? */
  paysOff(rawBytes: number, linkBytesPerSecond: number): boolean {
    if (this.speed === 0) return rawBytes > 16384;
    const saved = (rawBytes - rawBytes / Math.max(1, this.ratio)) / Math.max(1, linkBytesPerSecond);
    return saved > rawBytes / this.speed;
  }

  note(cost: FrameCost, linkBytesPerSecond: number): void {
    const ratio = cost.rawBytes / Math.max(1, cost.encodedBytes);
    const speed = (1e6 * cost.rawBytes) / Math.max(1, cost.micros);
    this.ratio = this.frames === 0 ? ratio : 0.8 * this.ratio + 0.2 * ratio;
    this.speed = this.speed === 0 ? speed : 0.8 * this.speed + 0.2 * speed;
    this.frames++;
    if (this.fixed !== undefined || this.frames % SETTLE_FRAMES !== 0) return;
    // the link takes encoded bytes; what the workers must eat to keep it full are raw ones
    const wanted = linkBytesPerSecond * this.ratio;
    const have = this.speed * this.workers;
    if (have < wanted && this.step > 0) this.move(-1);
    else if (have > SPARE_TO_RAISE * wanted && this.step < LADDER.length - 1) this.move(1);
  }

  private move(by: number): void {
    this.step += by;
    this.speed = 0;
  }
}
