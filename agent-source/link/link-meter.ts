/**
 * What the link does, from acknowledgements: bandwidth, round trip, and the offset between the two clocks.
 * Pure: times are passed in. Until the link was seen full, the bandwidth is what the probe found.
 */

const WINDOW_MS = 40;
const SMOOTHING = 0.3;
/** Windows of what goes over it, full or not. */
const CARRIED_WINDOWS = 4;
/** Windows of these that may have had more than it can: as long as the bucket of a shaped link lasts. */
const IN_BURST = 1;
/** Part of the most that went over it, in that sense. */
const AT_PEAK = 0.85;
/** Taken when nothing was measured yet: 1 Gbit/s. */
const BANDWIDTH_GUESS = 125e6;
/** What was measured so long ago counts no more. */
const PEAK_LASTS_MS = 4000;
/** Later than that: to hosts that are behind for seconds every link would look as if it carried no more. */
const CAPACITY_LASTS_MS = 30_000;
/** A probe is short, and may be wrong either way. */
const FOUND_LASTS_MS = 10_000;

/** What is left of a rate that was seen `elapsedMs` ago. */
const faded = (rate: number, elapsedMs: number, lastsMs: number): number => rate * Math.max(0, 1 - elapsedMs / lastsMs);

export class LinkMeter {
  bytesPerSecond = BANDWIDTH_GUESS;
  /**
   * The most that went over it lately, or that the probe found. Above `bytesPerSecond` where the hosts are what is narrow, or the
   * credit: what is measured then is theirs.
   */
  peakBytesPerSecond = BANDWIDTH_GUESS;
  /** Best round trip so far, milliseconds. */
  roundTripMs = Number.POSITIVE_INFINITY;
  /** Destination's clock minus this clock, microseconds; right to half a round trip. */
  clockOffsetUs = 0;
  /** Does it carry about what it can? Then it is what is narrow, and not a host that is behind. */
  isAtItsPeak = false;

  /** Bytes per second that went over it in the last windows, full or not, oldest first. */
  private readonly rates = new Float64Array(CARRIED_WINDOWS);
  private windows = 0;
  /** The most that it kept up. */
  private capacity = 0;
  /** What the probe found to last: of some milliseconds, in which a host may be behind. */
  private found = BANDWIDTH_GUESS;
  private windowStart = -1;
  private windowBytes = 0;
  private full = false;
  private applied = 0;

  /** Bytes were acknowledged; `wasFull`: the credit window kept the sender waiting since the last call. */
  acknowledged(appliedBytes: number, nowMs: number, wasFull: boolean): void {
    this.full ||= wasFull;
    if (this.windowStart < 0) {
      this.windowStart = nowMs;
      this.windowBytes = appliedBytes;
    }
    this.applied = appliedBytes;
    const elapsed = nowMs - this.windowStart;
    if (elapsed < WINDOW_MS) return;
    const rate = ((this.applied - this.windowBytes) * 1000) / elapsed;
    // a link that was not full is at least as fast as what went over it
    if (this.full) this.bytesPerSecond = (1 - SMOOTHING) * this.bytesPerSecond + SMOOTHING * rate;
    else if (rate > this.bytesPerSecond) this.bytesPerSecond = rate;
    this.peakBytesPerSecond = Math.max(
      faded(this.peakBytesPerSecond, elapsed, PEAK_LASTS_MS),
      rate,
      this.bytesPerSecond,
    );
    this.found = faded(this.found, elapsed, FOUND_LASTS_MS);
    this.noteCarried(rate, elapsed);
    this.windowStart = nowMs;
    this.windowBytes = appliedBytes;
    this.full = wasFull;
  }

  /** The link was down: what came over it meanwhile says nothing of its speed. */
  interrupted(): void {
    this.windowStart = -1;
    this.full = false;
    this.peakBytesPerSecond = this.bytesPerSecond;
  }

  /** @param lasting of its second half alone, behind what the bucket of a shaped link let pass */
  probed(bytesPerSecond: number, lasting = bytesPerSecond): void {
    if (!(bytesPerSecond > 0 && Number.isFinite(bytesPerSecond))) return;
    this.bytesPerSecond = bytesPerSecond;
    this.peakBytesPerSecond = bytesPerSecond;
    this.found = lasting > 0 && lasting < bytesPerSecond ? lasting : bytesPerSecond;
  }

  private noteCarried(rate: number, elapsedMs: number): void {
    const { rates } = this;
    rates.copyWithin(0, 1);
    rates[CARRIED_WINDOWS - 1] = rate;
    this.capacity = faded(this.capacity, elapsedMs, CAPACITY_LASTS_MS);
    if (++this.windows < CARRIED_WINDOWS) return;
    const kept = rates.toSorted()[IN_BURST] ?? 0;
    if (kept > this.capacity) this.capacity = kept;
    const carried = rates.reduce((sum, one) => sum + one, 0) / CARRIED_WINDOWS;
    this.isAtItsPeak = carried >= AT_PEAK * Math.max(this.capacity, this.found);
  }

  /** A clock reply came: the best round trip gives the best offset. */
  clock(sentUs: number, receivedUs: number, destinationUs: number): void {
    const roundTripMs = (receivedUs - sentUs) / 1000;
    if (roundTripMs < 0 || roundTripMs >= this.roundTripMs) return;
    this.roundTripMs = roundTripMs;
    this.clockOffsetUs = destinationUs - (sentUs + receivedUs) / 2;
  }

  /** Destination's time on this clock, microseconds. */
  toLocal(destinationUs: number): number {
    return destinationUs - this.clockOffsetUs;
  }

  /** The best round trip, or nothing while none was measured. */
  get knownRoundTripMs(): number {
    return Number.isFinite(this.roundTripMs) ? this.roundTripMs : 0;
  }

  get clockErrorMs(): number {
    return Number.isFinite(this.roundTripMs) ? this.roundTripMs / 2 : 0;
  }
}
