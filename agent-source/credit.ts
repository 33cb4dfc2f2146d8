/**
 * How much may be on its way at once. Pure.
 *
 * Deep while the guest runs here: enough for the link to be full whatever the granularity of frames and acknowledgements.
 * Shallow in post-copy, where a page that the guest waits for must not queue behind what nobody waits for.
 */
import type { LinkMeter } from "./link-meter.ts";

/** Below this the window would not cover the granularity of frames and acknowledgements. */
const DEEP_MIN_BYTES = 2 << 20;

type Link = Pick<LinkMeter, "bytesPerSecond" | "knownRoundTripMs">;
type NarrowLink = Link & Pick<LinkMeter, "peakBytesPerSecond">;

export const deepCredit = ({ bytesPerSecond, knownRoundTripMs }: Link, windowBytes: number): number =>
  Math.min(windowBytes, Math.max(DEEP_MIN_BYTES, (2 * bytesPerSecond * knownRoundTripMs) / 1000));

/**
 * What two agents take to answer each other, beside the round trip: two turns of an event loop that has other work, and the moment in
 * which acknowledgements are gathered (agent-destination/ack-pace.ts).
 */
const ANSWER_SECONDS = 0.004;
/**
 * With so little on its way what is measured is what the credit lets through, and a credit made of that would keep itself small: it
 * holds to the peak. A link that is so much slower than its peak has become slower.
 */
const SLOWER = 4;

/** What the link takes in a round trip and its answer, and a frame so that there is always one to be sent. */
export function shallowCredit(link: NarrowLink, windowBytes: number, frameBytes: number): number {
  const rate = Math.min(link.peakBytesPerSecond, SLOWER * link.bytesPerSecond);
  return Math.min(windowBytes, frameBytes + rate * (link.knownRoundTripMs / 1000 + ANSWER_SECONDS));
}

const FRAME_SECONDS = 0.002;
const FRAME_BYTES_MIN = 16 << 10;
/** Each frame costs both agents a third of a millisecond and more, whatever its length (docs/decisions/0036). */
const FRAME_BYTES_MAX = 256 << 10;

/** Frames of post-copy: what the link takes in two milliseconds, before compression, within reason. */
export const shallowFrameBytes = ({ bytesPerSecond }: Link, contractBytes: number): number =>
  Math.min(
    contractBytes,
    Math.max(FRAME_BYTES_MIN, Math.min(FRAME_BYTES_MAX, Math.floor(bytesPerSecond * FRAME_SECONDS))),
  );
