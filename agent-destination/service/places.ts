/** What there is of this host for one more guest: a place among the migrations, the guest's name, and memory. */
import { MigrationFault, type Refusal } from "../../shared/fault.ts";
import { hasOtherPeers } from "../../shared/link/callers/authorise.ts";
import type { Caller } from "../../shared/link/link.ts";
import { checkMigrations } from "../../shared/protocol/handshake.ts";
import { orLate } from "../../shared/runtime/deferred.ts";
import type { Incoming } from "./incoming.ts";
import type { DestinationAgentParts } from "./recovery.ts";

/** A new migration of the same guest waits this long for the end of one that was given up. */
const CLEARS_WITHIN_MS = 15_000;

export class Places {
  private readonly parts: Pick<DestinationAgentParts, "config" | "limits">;
  private readonly entries: ReadonlyMap<string, Incoming>;
  /** Guests whose earlier migration is waited for. */
  private readonly clearing = new Set<string>();

  /** @param entries every migration that is under way */
  constructor(parts: Pick<DestinationAgentParts, "config" | "limits">, entries: ReadonlyMap<string, Incoming>) {
    this.parts = parts;
    this.entries = entries;
  }

  /**
   * Keeps the last free place for a peer that has none, so that no peer can hold all of them. Where nobody else may
   * call, there is nobody to keep it for.
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
   * Memory that guests which came before are still to take, bytes: it is free now, and is not there for another guest.
   * @param sequence guests from here on are not counted, so that of two that come together the earlier one has it
   * @param except the guest that it is for, whose earlier migration makes way
   */
  async promised(sequence: number, except: string): Promise<number> {
    const before = [...this.entries.values()].filter(({ cx }) => cx.sequence < sequence && cx.guest !== except);
    const each = await Promise.all(before.map((entry) => entry.stillToTake()));
    return each.reduce((sum, bytes) => sum + bytes, 0);
  }

  entryOf(guest: string): Incoming | undefined {
    return [...this.entries.values()].find(({ cx }) => cx.guest === guest);
  }

  /**
   * Makes way for a new migration of a guest. A source has at most one migration of a guest, so a source that begins a
   * new one has given the earlier one up (Incoming.isGivenUpBy), and the earlier one is refused for good first. One
   * offer for a guest waits; further ones find the guest busy.
   */
  async clear(guest: string): Promise<void> {
    const entry = this.entryOf(guest);
    if (entry === undefined || this.clearing.has(guest)) return;
    this.clearing.add(guest);
    try {
      entry.drop(new MigrationFault("peer-lost", "The source has begun another migration of this guest"));
      await orLate(entry.ended, CLEARS_WITHIN_MS);
    } finally {
      this.clearing.delete(guest);
    }
  }

  /** @returns nothing where no migration of the guest is under way here */
  busyWith(guest: string): readonly Refusal[] {
    const entry = this.entryOf(guest);
    if (entry === undefined) return [];
    const message = `Another migration of ${guest} to this destination is under way (${entry.cx.id}, ${entry.state.kind}); wait for it, or see at this agent what it waits for: ferry list`;
    return [{ code: "guest-busy", message }];
  }
}
