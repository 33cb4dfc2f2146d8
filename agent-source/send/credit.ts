/**
 * How much may be on its way at once. Pure.
 *
 * Deep while the guest runs here: enough for the link to be full whatever the granularity of frames and acknowledgements.
 * Shallow in post-copy, where a page that the guest waits for must not queue behind what nobody waits for.
 */
import type { LinkMeter } from "../link/link-meter.ts";

/** What the agents have in their hands, whatever the link: frames that are compressed, and acknowledgements that are gathered. */
const IN_HAND_BYTES = 2 << 20;
/** Of what a long link holds: more than all of it, or what is measured would be the credit's own rate, and stay so. */
const OF_WHAT_IT_HOLDS = 2;

type Rates = Pick<LinkMeter, "bytesPerSecond" | "peakBytesPerSecond">;
type Link = Rates & Pick<LinkMeter, "knownRoundTripMs">;

/**
 * What two agents take to answer each other, beside the round trip: two turns of an event loop that has other work, and the moment in
 * which acknowledgements are gathered (agent-destination/replay/ack-batcher.ts).
 */
const ANSWER_MS = 4;
/**
 * With so little on its way what is measured is what the credit lets through, and a credit made of that would keep itself small: it
 * holds to the peak. A link that is so much slower than its peak has become slower.
 */
const SLOWER = 4;

const rateOf = ({ bytesPerSecond, peakBytesPerSecond }: Rates): number =>
  Math.min(peakBytesPerSecond, SLOWER * bytesPerSecond);

/** What of a round trip is the way: over a short one it is the agents that take their time, and that is in their hands already. */
const wayMs = ({ knownRoundTripMs }: Link): number => Math.max(0, knownRoundTripMs - ANSWER_MS);

export const deepCredit = (link: Link, windowBytes: number): number =>
  Math.min(windowBytes, IN_HAND_BYTES + (OF_WHAT_IT_HOLDS * rateOf(link) * wayMs(link)) / 1000);

/**
 * Where the hosts are what is narrow: frames that wait for a processor, to be compressed or to be read, are of the credit too, and with the
 * least of it each agent waits for the other for most of the time (docs/decisions/0041).
 */
const HOSTS_MS = 4;

/**
 * What the link takes in a round trip and its answer, and a frame so that there is always one to be sent.
 * @param hostsAreNarrow and the guest has got going: a page that it waits for may be that much later
 */
export const shallowCredit = (link: Link, windowBytes: number, frameBytes: number, hostsAreNarrow = false): number => {
  const answerMs = ANSWER_MS + (hostsAreNarrow ? HOSTS_MS : 0);
  return Math.min(windowBytes, frameBytes + (rateOf(link) * (link.knownRoundTripMs + answerMs)) / 1000);
};

const FRAME_SECONDS = 0.002;
const FRAME_BYTES_MIN = 16 << 10;
/** Each frame costs both agents a third of a millisecond and more, whatever its length (docs/decisions/0036). */
const FRAME_BYTES_MAX = 256 << 10;

/**
 * Frames of post-copy: what the link takes in two milliseconds, before compression, within reason. By its peak too: hosts that are behind
 * would get more and shorter frames for it, and be further behind.
 */
export const shallowFrameBytes = (link: Rates, contractBytes: number): number =>
  Math.min(
    contractBytes,
    Math.max(FRAME_BYTES_MIN, Math.min(FRAME_BYTES_MAX, Math.floor(rateOf(link) * FRAME_SECONDS))),
  );
