/** The destination's service: one incoming migration for each accepted handshake, at most one for a guest. */
import { MigrationFault } from "../shared/fault.ts";
import type { DestinationService, LinkLimits } from "../shared/link/link.ts";
import type { PageKernels } from "../shared/page/kernels.ts";
import type { HandshakeAnswer, Offer } from "../shared/protocol/messages.ts";
import type { DestinationRecord } from "../shared/protocol/ownership.ts";
import type { Clock } from "../shared/runtime/clock.ts";
import type { DestinationConfig } from "../shared/runtime/config.ts";
import { deferred } from "../shared/runtime/deferred.ts";
import type { Journal } from "../shared/runtime/journal.ts";
import type { Logger } from "../shared/runtime/log.ts";
import { processUsage } from "../shared/runtime/process-usage.ts";
import { returnMemoryLater } from "../shared/runtime/return-memory.ts";
import { runDestinationMigration } from "./destination-migration.ts";

export interface DestinationAgentParts {
  readonly config: DestinationConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly journal: Journal<DestinationRecord>;
  readonly limits: LinkLimits;
  readonly createKernels: (byteLength: number) => PageKernels;
}

export class DestinationAgent implements DestinationService {
  private readonly parts: DestinationAgentParts;
  private readonly stopping = new AbortController();
  /** Incoming migrations under way, by guest. */
  private readonly incoming = new Map<string, Promise<unknown>>();

  constructor(parts: DestinationAgentParts) {
    this.parts = parts;
  }

  async handshake(offer: Offer, caller: string): Promise<HandshakeAnswer> {
    const guest = offer.guest.name;
    this.parts.log.info({ migration: offer.migrationId, guest, caller }, "handshake");
    if (this.incoming.has(guest)) {
      const message = `Another migration of ${guest} to this destination is under way; wait for it or cancel it`;
      return { kind: "refusals", refusals: [{ code: "guest-busy", message }] };
    }
    const { log, ...parts } = this.parts;
    const answer = deferred<HandshakeAnswer>();
    const ended = runDestinationMigration({
      ...parts,
      offer,
      answer,
      log: log.child({ migration: offer.migrationId, guest }),
      stopping: this.stopping.signal,
      cpuSecondsBefore: processUsage().cpuSeconds,
    }).finally(() => {
      this.incoming.delete(guest);
      returnMemoryLater(() => this.incoming.size === 0);
    });
    this.incoming.set(guest, ended);
    const given = await answer.promise;
    // a refusal is given when nothing is in the way of the next try any more
    if (given.kind === "refusals" || offer.dryRun) await ended;
    return given;
  }

  /** Discards what was not granted; what was is started first. */
  async stop(): Promise<void> {
    this.stopping.abort(new MigrationFault("stopping", "The destination agent is being stopped"));
    await Promise.all(this.incoming.values());
  }
}
