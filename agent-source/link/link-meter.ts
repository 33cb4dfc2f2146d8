/**
 * Measures what the link does: its bandwidth by acknowledgements, its round trip and the offset between the two hosts'
 * clocks by clock replies. Pure: times are passed in. Until the sender has once had to wait for credit, the bandwidth
 * is what the probe found, or a higher rate that was carried since.
 */

/** The shortest window over which a rate is measured, milliseconds. */
const WINDOW_MS = 40;
/** The weight of the newest window in `bytesPerSecond`. */
const SMOOTHING = 0.3;
/** How many of the last windows tell what the link carries now, whether or not the sender had to wait for credit. */
const CARRIED_WINDOWS = 4;
/**
 * The index of the window whose rate counts as sustained, among the last four windows sorted from the slowest to the
 * fastest. With the index 1, three of the four windows were at least as fast. So one slow window does not lower the
 * sustained rate, and two fast windows do not raise it: two windows are 80 ms, as long as the burst that the token
 * bucket of a shaped link lets pass (docs/design/credit-and-frames.md#what-the-link-carries).
 */
const IN_BURST = 1;
/** The link counts as full (`isAtItsPeak`) from this fraction of its sustained peak on. */
const AT_PEAK = 0.85;
/** The bandwidth that is assumed before anything was measured: 1 Gbit/s, in bytes per second. */
const BANDWIDTH_GUESS = 125e6;
/** How fast `peakBytesPerSecond` fades: about a third of it is left after this time, milliseconds. */
const PEAK_LASTS_MS = 4000;
/**
 * How fast the sustained peak fades: about a third of it is left after this time, milliseconds. It fades more slowly
 * than `peakBytesPerSecond`: if the hosts were busy for seconds, a quickly forgotten peak would make any link look
 * full.
 */
const CAPACITY_LASTS_MS = 30_000;
/**
 * How fast the rate fades that the probe found: about a third of it is left after this time, milliseconds. A short
 * probe may find too high or too low a rate.
 */
const FOUND_LASTS_MS = 10_000;

/**
 * Returns what is left of a rate after a window of `elapsedMs`. After many short windows of together `lastsMs`, 1/e of
 * the rate is left.
 */
const faded = (rate: number, elapsedMs: number, lastsMs: number): number => rate * Math.max(0, 1 - elapsedMs / lastsMs);

export class LinkMeter {
  bytesPerSecond = BANDWIDTH_GUESS;
  /**
   * The most that the link carried lately, or that the probe found. It is above `bytesPerSecond` where the hosts or the
   * credit let through less than the link could carry: the measured rate is then their rate.
   */
  peakBytesPerSecond = BANDWIDTH_GUESS;
  /** Best round trip so far, milliseconds. */
  roundTripMs = Number.POSITIVE_INFINITY;
  /** The destination's clock minus this clock, microseconds; right to half a round trip. */
  clockOffsetUs = 0;
  /** True while the link carries about what it can: the bottleneck is then the link, and not a busy host. */
  isAtItsPeak = false;

  /** Bytes per second of the last windows, whether or not the sender had to wait for credit; the oldest first. */
  private readonly rates = new Float64Array(CARRIED_WINDOWS);
  private windows = 0;
  /** The sustained peak: the most that the link kept up for some windows, bytes per second. */
  private capacity = 0;
  /**
   * The rate that the link sustained during the probe, bytes per second. The probe lasts only some milliseconds, in
   * which a busy host may slow it down.
   */
  private found = BANDWIDTH_GUESS;
  private windowStart = -1;
  private windowBytes = 0;
  /** True when the sender had to wait for credit in this window. */
  private full = false;
  private applied = 0;

  /**
   * Takes an acknowledgement.
   * @param appliedBytes all bytes that were acknowledged so far
   * @param wasFull true when the sender had to wait for credit since the last call
   */
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
    // a link on which the sender did not have to wait for credit can carry at least what it has carried
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

  /** Notes that the link was down: what came over it meanwhile says nothing about its speed. */
  interrupted(): void {
    this.windowStart = -1;
    this.full = false;
    this.peakBytesPerSecond = this.bytesPerSecond;
  }

  /**
   * Takes what the probe found.
   * @param lasting the rate of the probe's second half alone, after the burst that the token bucket of a shaped link
   *   lets pass
   */
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

  /** Takes a clock reply. The reply with the best round trip gives the best offset. */
  clock(sentUs: number, receivedUs: number, destinationUs: number): void {
    const roundTripMs = (receivedUs - sentUs) / 1000;
    if (roundTripMs < 0 || roundTripMs >= this.roundTripMs) return;
    this.roundTripMs = roundTripMs;
    this.clockOffsetUs = destinationUs - (sentUs + receivedUs) / 2;
  }

  /** Converts a time of the destination's clock to this clock, microseconds. */
  toLocal(destinationUs: number): number {
    return destinationUs - this.clockOffsetUs;
  }

  /** The best round trip, milliseconds; 0 while none was measured. */
  get knownRoundTripMs(): number {
    return Number.isFinite(this.roundTripMs) ? this.roundTripMs : 0;
  }

  /** How wrong a time from toLocal() may be: half of the best round trip, milliseconds; 0 while none was measured. */
  get clockErrorMs(): number {
    return Number.isFinite(this.roundTripMs) ? this.roundTripMs / 2 : 0;
  }
}
