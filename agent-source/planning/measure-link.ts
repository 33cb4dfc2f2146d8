/**
 * Measures bandwidth and round trip of the way to a destination for a plan. The bandwidth is measured by *probes*,
 * which are messages of padding. The measurement takes longer than the one before a migration (link/probe-link.ts),
 * since a shaped link lets the first hundreds of kilobytes pass at once (docs/design/planning.md#the-link).
 */
import { MigrationFault } from "../../shared/fault.ts";
import type { SourceChannel } from "../../shared/link/link.ts";
import type { LinkObservation } from "../../shared/model/observation.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { deferred, orAborted } from "../../shared/runtime/deferred.ts";
import { LinkMeter } from "../link/link-meter.ts";
import { PeerInbox } from "../link/peer-inbox.ts";
import { noise, PADDING_BYTES } from "../link/probe-link.ts";

const PINGS = 8;
/**
 * As many probes are in flight as the link carries in this time and two round trips, milliseconds. With more probes the
 * queue of a slow link overflows (docs/design/planning.md#the-link).
 */
const QUEUE_MS = 30;
/** How many probes are in flight: at least, at first, and at most. */
const WINDOW_MIN = 4;
const WINDOW_START = 8;
const WINDOW_MAX = 256;
/** For how long the first probes are not counted, milliseconds: TCP has to find the link's rate first. */
const WARM_UP_MS = 400;
/** How long probes are counted after WARM_UP_MS, milliseconds. */
const MEASURE_MS = 800;
const GIVES_UP_MS = 10_000;

/**
 * Measures the link, and closes the channel.
 * @throws MigrationFault `peer-lost` when the destination ends the channel, or the link takes too long; the reason of
 *   `cancelled`
 */
export async function measureLink(
  channel: SourceChannel,
  clock: Clock,
  cancelled: AbortSignal,
): Promise<LinkObservation> {
  const failed = new AbortController();
  const signal = AbortSignal.any([cancelled, failed.signal]);
  const meter = new LinkMeter();
  const inbox = new PeerInbox(channel, meter, clock, (fault) => failed.abort(fault));
  const late = clock.after(GIVES_UP_MS, () =>
    failed.abort(new MigrationFault("peer-lost", `The link could not be measured within ${GIVES_UP_MS} ms`)),
  );
  try {
    for (let ping = 0; ping < PINGS; ping++) await orAborted(inbox.ping(), signal);
    const roundTripMs = meter.knownRoundTripMs;
    return { bytesPerSecond: await flood(channel, inbox, { clock, roundTripMs }, signal), roundTripMs };
  } finally {
    clock.cancel(late);
    channel.send({ kind: "endOfStream", lastSequence: 0 });
    channel.close();
  }
}

/** Fills the link with probes. @returns bytes per second */
async function flood(
  channel: SourceChannel,
  inbox: PeerInbox,
  { clock, roundTripMs }: { readonly clock: Clock; readonly roundTripMs: number },
  signal: AbortSignal,
): Promise<number> {
  const padding = noise(PADDING_BYTES);
  const beganMs = clock.monotonicMs();
  const measured = deferred<number>();
  let sent = 0;
  let window = WINDOW_START;
  let from: { readonly ms: number; readonly acked: number } | undefined;
  const fill = (acked: number): void => {
    while (sent - acked < window) channel.send({ kind: "probe", sequence: ++sent, padding });
  };
  inbox.onAck = ({ sequence: acked }) => {
    const now = clock.monotonicMs();
    const probesPerMs = acked / Math.max(1, now - beganMs);
    window = Math.min(WINDOW_MAX, Math.max(WINDOW_MIN, Math.ceil(probesPerMs * (QUEUE_MS + 2 * roundTripMs))));
    if (from === undefined && now - beganMs >= WARM_UP_MS) from = { ms: now, acked };
    if (from !== undefined && now - from.ms >= MEASURE_MS)
      measured.resolve((1000 * (acked - from.acked) * PADDING_BYTES) / (now - from.ms));
    else fill(acked);
  };
  fill(0);
  return await orAborted(measured.promise, signal);
}
