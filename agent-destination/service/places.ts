/**
 * Tells what this host has left for one more guest: a place among `migrations.max`, the guest's name where no other
 * migration has it, and memory that no other guest was promised (docs/design/security.md#places).
 */
import { MigrationFault, type Refusal } from "../../shared/fault.ts";
import { hasOtherPeers } from "../../shared/link/callers/authorise.ts";
import type { Caller } from "../../shared/link/link.ts";
import { checkMigrations } from "../../shared/protocol/handshake.ts";
import { orLate } from "../../shared/runtime/deferred.ts";
import type { Incoming } from "./incoming.ts";
import type { DestinationAgentParts } from "./recovery.ts";

/**
 * How long a new migration of a guest waits for the end of an earlier one that the source has given up, milliseconds.
 * Where the earlier one has not ended by then, the offer is refused: the guest is busy.
 */
const CLEARS_WITHIN_MS = 15_000;

/** Tells whether there is a place for one more migration, and makes way for it. */
export class Places {
  private readonly parts: Pick<DestinationAgentParts, "config" | "limits" | "clock">;
  private readonly entries: ReadonlyMap<string, Incoming>;
  /** The guests for which an offer waits until their earlier migration has ended. */
  private readonly clearing = new Set<string>();

  /** @param entries every migration that is under way */
  constructor(
    parts: Pick<DestinationAgentParts, "config" | "limits" | "clock">,
    entries: ReadonlyMap<string, Incoming>,
  ) {
    this.parts = parts;
    this.entries = entries;
  }

  /**
   * Checks that there is a place for a migration of this caller. The last free place is kept for a peer that has no
   * place, so that no peer can hold all of them. Where no other peer may call, the caller may have the last place too.
   * @throws MigrationFault `busy`
   */
  check(caller: Caller): void {
    const { migrationsMax: max } = this.parts.config;
    checkMigrations("destination", this.entries.size, max);
    if (this.entries.size < max - 1 || !hasOtherPeers(caller, this.parts.limits.security)) return;
    const held = [...this.entries.values()].filter(({ cx }) => cx.caller === caller.name).length;
    if (held === 0) return;
    throw new MigrationFault(
      "busy",
      `${caller.name} has ${held} of the destination's ${max} places (migrations.max), and the last one is for another peer`,
      {
        role: "destination",
        advice: "Wait until one of its migrations has ended, or raise migrations.max of the destination agent",
      },
    );
  }

  /**
   * Adds up the memory that other guests are still to take, bytes. That memory is free now, and will not be there for
   * one more guest.
   * @param sequence only migrations with a smaller `sequence` are counted, so that of two guests that come together the
   *   earlier one has the memory
   * @param except the guest that the sum is for: its own earlier migration makes way, and is not counted
   */
  async promised(sequence: number, except: string): Promise<number> {
    const before = [...this.entries.values()].filter(({ cx }) => cx.sequence < sequence && cx.guest !== except);
    const each = await Promise.all(before.map((entry) => entry.stillToTake()));
    return each.reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Finds the migration of a guest that is under way. */
  entryOf(guest: string): Incoming | undefined {
    return [...this.entries.values()].find(({ cx }) => cx.guest === guest);
  }

  /**
   * Ends the migration of a guest that is under way, to make way for a new one, and waits for its end, at most
   * CLEARS_WITHIN_MS. A source has at most one migration of a guest, so a source that begins a new one has given the
   * earlier one up (Incoming.isGivenUpBy). The new one begins only when the earlier one is refused for good. One offer
   * for a guest waits for that; further offers are refused, because the guest is busy.
   */
  async clear(guest: string): Promise<void> {
    const entry = this.entryOf(guest);
    if (entry === undefined || this.clearing.has(guest)) return;
    this.clearing.add(guest);
    try {
      entry.drop(new MigrationFault("peer-lost", "The source has begun another migration of this guest"));
      await orLate(entry.ended, CLEARS_WITHIN_MS, this.parts.clock);
    } finally {
      this.clearing.delete(guest);
    }
  }

  /**
   * Tells whether a migration of the guest is under way here.
   * @returns the refusal of an offer; an empty list where there is no such migration
   */
  busyWith(guest: string): readonly Refusal[] {
    const entry = this.entryOf(guest);
    if (entry === undefined) return [];
    const message = `Another migration of ${guest} to this destination is under way (${entry.cx.id}, ${entry.state.kind}); wait for it, or see at this agent what it waits for: ferry list`;
    return [{ code: "guest-busy", message }];
  }
}
