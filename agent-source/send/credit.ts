/**
 * Computes the credit: how many bytes may be on their way without an acknowledgement. Pure.
 *
 * The credit is deep while the guest runs at the source: enough to keep the link full, however coarse frames and
 * acknowledgements are. It is shallow in post-copy, where a page for which the guest waits must not queue behind pages
 * for which the guest does not wait.
 */
import type { LinkMeter } from "../link/link-meter.ts";

/**
 * The part of the deep credit that the agents themselves use up, bytes, whatever the link is: frames that are being
 * compressed, and acknowledgements that are being gathered. With 3 and 4 MiB a migration was no faster beyond the
 * noise, and sent 3 to 15 % more bytes (docs/design/credit-and-frames.md#deep-credit).
 */
const IN_HAND_BYTES = 2 << 20;
/**
 * The part of the deep credit that depends on the link, as a multiple of how many bytes a long link holds: its rate
 * times its round trip. The multiple must exceed 1: at 1 the measured rate is the rate that the credit allows, and the
 * credit never grows. At 3 a migration took as long as at 2, sent 4 to 8 % more bytes, and had a longer downtime
 * (docs/design/credit-and-frames.md#deep-credit).
 */
const OF_WHAT_IT_HOLDS = 2;

type Rates = Pick<LinkMeter, "bytesPerSecond" | "peakBytesPerSecond">;
type Link = Rates & Pick<LinkMeter, "knownRoundTripMs">;

/**
 * How long two agents take to answer each other, beside the way over the link, milliseconds: two turns of an event loop
 * that has other work, and the time for which acknowledgements are gathered (agent-destination/replay/ack-batcher.ts).
 */
const ANSWER_MS = 4;
/**
 * The credit goes by the peak rate, but by no more than this multiple of the measured rate. While few bytes are in
 * flight, that rate is only what the credit lets through, and a credit computed from it would keep itself small. A link
 * whose measured rate is further below its peak has become slower (docs/design/credit-and-frames.md#deep-credit).
 */
const SLOWER = 4;

/** @returns the rate that the credit and the frames go by, bytes per second */
const rateOf = ({ bytesPerSecond, peakBytesPerSecond }: Rates): number =>
  Math.min(peakBytesPerSecond, SLOWER * bytesPerSecond);

/**
 * @returns the part of the round trip that is the way over the link, milliseconds. A short round trip is the agents'
 *   own time, which IN_HAND_BYTES covers
 */
const wayMs = ({ knownRoundTripMs }: Link): number => Math.max(0, knownRoundTripMs - ANSWER_MS);

/**
 * Computes the credit while the guest runs at the source, bytes.
 * @param windowBytes the bound by contract
 */
export const deepCredit = (link: Link, windowBytes: number): number =>
  Math.min(windowBytes, IN_HAND_BYTES + (OF_WHAT_IT_HOLDS * rateOf(link) * wayMs(link)) / 1000);

/**
 * How much longer an answer may take where the hosts are the bottleneck and not the link, milliseconds. Frames that
 * wait for a processor, to be compressed or to be read, use up credit too. Without this allowance each agent waits for
 * the other for most of the time. With 8 and 12 ms here the guest's longest pauses were longer
 * (docs/design/credit-and-frames.md#post-copy).
 */
const HOSTS_MS = 4;

/**
 * Computes the credit in post-copy, bytes: what the link takes during a round trip and the answer, and one frame, so
 * that there is always a frame to send.
 * @param windowBytes the bound by contract
 * @param hostsAreSlow true if the hosts are the bottleneck and not the link, and the guest no longer goes from one
 *   missing page to the next: a page for which the guest waits may then come HOSTS_MS later
 */
export const shallowCredit = (link: Link, windowBytes: number, frameBytes: number, hostsAreSlow = false): number => {
  const answerMs = ANSWER_MS + (hostsAreSlow ? HOSTS_MS : 0);
  return Math.min(windowBytes, frameBytes + (rateOf(link) * (link.knownRoundTripMs + answerMs)) / 1000);
};

/** How long the link takes for a frame of post-copy, before compression, seconds. */
const FRAME_SECONDS = 0.002;
/** The lower bound of shallowFrameBytes(), bytes, unless the contract's frames are shorter. */
const FRAME_BYTES_MIN = 16 << 10;
/**
 * The upper bound of shallowFrameBytes(), bytes. Each frame costs both agents a third of a millisecond and more,
 * whatever its length, so a smaller bound is slower. A bound of 512 KiB brought too little to be kept
 * (docs/design/credit-and-frames.md#post-copy).
 */
const FRAME_BYTES_MAX = 256 << 10;

/**
 * @param contractBytes the most bytes that a frame may have by contract, before compression
 * @returns the most bytes that a frame of post-copy may have, before compression: what the link takes in FRAME_SECONDS,
 *   within bounds. The link's peak counts here too: without it, busy hosts would get more and shorter frames, and would
 *   have still more to do (docs/design/credit-and-frames.md#post-copy)
 */
export const shallowFrameBytes = (link: Rates, contractBytes: number): number =>
  Math.min(
    contractBytes,
    Math.max(FRAME_BYTES_MIN, Math.min(FRAME_BYTES_MAX, Math.floor(rateOf(link) * FRAME_SECONDS))),
  );
