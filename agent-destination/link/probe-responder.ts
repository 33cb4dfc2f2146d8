/**
 * Answers a source that only measures the link. The agent opens a transfer stream as for a migration, but only pings
 * and probes go over it.
 */
import { MigrationFault } from "../../shared/fault.ts";
import { diallerOf } from "../../shared/link/grpc/grpc-link.ts";
import type { LinkLimits } from "../../shared/link/link.ts";
import { ResumingDestination } from "../../shared/link/resume/resuming-destination.ts";
import type { Offer } from "../../shared/protocol/messages.ts";
import type { SourceMessage } from "../../shared/protocol/stream-messages.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { Logger } from "../../shared/runtime/log/log.ts";

/**
 * How long a measurement may last, milliseconds. The source ends a measurement. A source that has not ended it by then
 * gets a failure, and the stream is closed.
 */
const LASTS_MS = 15_000;
/** How long the link may be down, milliseconds. A measurement is not worth a longer wait. */
const PATIENCE_MS = 1000;

export interface ProbeResponderOptions {
  readonly limits: LinkLimits;
  readonly clock: Clock;
  readonly log: Logger;
  /** Aborted when the agent ends what is under way. */
  readonly leaving: AbortSignal;
}

/** Dials the source, and answers it until it has measured the link. Never rejects: a failure is logged. */
export async function answerProbe(offer: Offer, parts: ProbeResponderOptions): Promise<void> {
  try {
    await answerUntilMeasured(offer, parts);
  } catch (thrown) {
    const { message } = MigrationFault.from(thrown);
    parts.log.warn({ migration: offer.migrationId, fault: message }, "the link cannot be measured");
  }
}

async function answerUntilMeasured(
  { migrationId, token, sourceAddress }: Offer,
  { limits, clock, log, leaving }: ProbeResponderOptions,
): Promise<void> {
  const channel = new ResumingDestination({
    patienceMs: PATIENCE_MS,
    peer: sourceAddress,
    migrationId,
    token,
    clock,
    dial: diallerOf(sourceAddress, limits),
  });
  const end = ({ code, message }: MigrationFault): void => {
    channel.send({ kind: "failure", code, message, refusedToken: new Uint8Array() });
    channel.close();
  };
  const onLeaving = (): void => end(MigrationFault.from(leaving.reason));
  const late = new MigrationFault("timeout", `The link was not measured within ${LASTS_MS} ms`);
  const timer = clock.after(LASTS_MS, () => end(late));
  leaving.addEventListener("abort", onLeaving, { once: true });
  let probeBytes = 0;
  try {
    channel.receive((message: SourceMessage) => {
      switch (message.kind) {
        case "probe":
          probeBytes += message.padding.length;
          channel.send({ kind: "ack", sequence: message.sequence, appliedBytes: probeBytes });
          return;
        case "clockPing":
          channel.send({ kind: "clockReply", nonce: message.nonce, destinationTimeUs: clock.nowUs() });
          return;
        case "welcome":
          return;
        case "endOfStream":
          channel.close();
          return;
        default:
          throw new MigrationFault("peer-invalid", `The source says ${message.kind} where it only measures the link`, {
            role: "source",
          });
      }
    });
    const fault = await channel.closed;
    if (fault === undefined) log.info({ migration: migrationId, probeBytes }, "the link was measured");
    else {
      end(fault);
      log.warn({ migration: migrationId, probeBytes, fault: fault.message }, "the measurement of the link failed");
    }
  } finally {
    clock.cancel(timer);
    leaving.removeEventListener("abort", onLeaving);
  }
}
