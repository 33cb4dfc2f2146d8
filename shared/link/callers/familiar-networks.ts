/**
 * Remembers the networks from which listed callers have come lately. Each of them has a rate of handshakes of its own,
 * so that strangers do not take its turns.
 */
import type { Clock } from "../../runtime/clock.ts";
import { Rate } from "./rate.ts";

/**
 * The most familiar networks that are remembered. A network is familiar when a listed caller has come from it within
 * FAMILIAR_MS milliseconds.
 */
const FAMILIAR_MAX = 256;
const FAMILIAR_MS = 3_600_000;
const FAMILIAR_PER_SECOND = 20;
const FAMILIAR_BURST = 40;

export class FamiliarNetworks {
  private readonly clock: Clock;
  /**
   * The familiar networks, with when a listed caller last came from each, monotonic milliseconds. The network that has
   * been away for the longest time comes first.
   */
  private readonly known = new Map<string, { readonly rate: Rate; readonly sinceMs: number }>();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Gives the rate of handshakes of a familiar network. @returns undefined for a network that is not familiar */
  rateOf(network: string): Rate | undefined {
    const found = this.known.get(network);
    if (found === undefined || this.clock.monotonicMs() - found.sinceMs < FAMILIAR_MS) return found?.rate;
    this.known.delete(network);
    return undefined;
  }

  /** Notes that a listed caller has come from the network. */
  remember(network: string): void {
    const rate = this.rateOf(network) ?? new Rate(FAMILIAR_PER_SECOND, FAMILIAR_BURST, this.clock);
    this.known.delete(network);
    this.known.set(network, { rate, sinceMs: this.clock.monotonicMs() });
    // the networks that have been away for the longest time are forgotten
    for (const oldest of this.known.keys()) {
      if (this.known.size <= FAMILIAR_MAX) return;
      this.known.delete(oldest);
    }
  }
}
