/** Measures the link before the first page: round trips one at a time, then a burst of padding for the bandwidth. */
import { randomFillSync } from "node:crypto";
import { MigrationFault } from "../../shared/fault.ts";
import type { SourceChannel } from "../../shared/link/link.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { deferred } from "../../shared/runtime/deferred.ts";
import type { LinkMeter } from "./link-meter.ts";
import type { PeerInbox } from "./peer-inbox.ts";

const PINGS = 4;
/**
 * After this time no further ping is sent, milliseconds. Where round trips are long, few pings are enough, since what a
 * host adds to a long round trip is small beside it (docs/design/link-and-resume.md#the-probe-before-the-first-page).
 */
const PINGS_MS = 30;
/** The length of the padding of a probe, bytes. */
export const PADDING_BYTES = 64 * 1024;
/** How many messages of padding are sent. They are 768 KiB together: 6 ms at 1 Gbit/s, 0.6 s at 10 Mbit/s. */
const PROBES = 12;

/**
 * Measures round trip, clock offset and bandwidth, and tells the meter. Begins again when the link is cut.
 * @returns how many bytes of padding were sent
 */
export async function probeLink(
  channel: SourceChannel,
  inbox: PeerInbox,
  meter: LinkMeter,
  clock: Clock,
): Promise<number> {
  while (true) {
    const again = inbox.nextConnection.then(() => undefined);
    const sent = await Promise.race([probeOnce(channel, inbox, meter, clock), again]);
    if (sent !== undefined) return sent;
  }
}

async function probeOnce(channel: SourceChannel, inbox: PeerInbox, meter: LinkMeter, clock: Clock): Promise<number> {
  const beganMs = clock.monotonicMs();
  for (let i = 0; i < PINGS && clock.monotonicMs() - beganMs < PINGS_MS; i++) await inbox.ping();
  const done = deferred<void>();
  const padding = noise(PADDING_BYTES);
  let [firstUs, halfUs] = [0, 0];
  let acked = 0;
  inbox.onAck = ({ sequence }) => {
    if (sequence !== ++acked)
      throw new MigrationFault("peer-invalid", `The destination acknowledged probe ${sequence} after ${acked - 1}`);
    const nowUs = clock.nowUs();
    if (acked === 1) firstUs = nowUs;
    if (acked === PROBES / 2) halfUs = nowUs;
    if (acked < PROBES) return;
    meter.probed(rate(PROBES - 1, nowUs - firstUs), rate(PROBES / 2, nowUs - halfUs));
    done.resolve();
  };
  for (let sequence = 1; sequence <= PROBES; sequence++)
    if (!channel.send({ kind: "probe", sequence, padding })) await channel.drained();
  await done.promise;
  return PROBES * PADDING_BYTES;
}

/** @returns bytes per second */
const rate = (probes: number, micros: number): number => (1e6 * probes * PADDING_BYTES) / Math.max(1, micros);

/** Makes random bytes, which nothing on the way can compress. */
export const noise = (byteLength: number): Uint8Array => randomFillSync(new Uint8Array(byteLength));
