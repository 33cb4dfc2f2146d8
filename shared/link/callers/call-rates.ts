/**
 * How often a caller may call. All connections that show the same name in their certificates are one caller, so that
 * nobody has more calls by having more connections. A connection whose caller shows no listed name is a caller of its
 * own.
 */
import type { Clock } from "../../runtime/clock.ts";
import { Rate } from "./rate.ts";

/** The rate of all calls of a caller. A command of `ferry` makes a few, and an agent one or two for each migration. */
const CALLS_PER_SECOND = 50;
const CALLS_BURST = 100;
/**
 * The rate of handshakes of a caller, which count as calls too. A handshake describes a guest, and takes longer to read
 * than any other call.
 */
const HANDSHAKES_PER_SECOND = 5;
const HANDSHAKES_BURST = 40;
const HANDSHAKE = "/ferry.v1.DestinationService/Handshake";

/** The rates of one caller. */
export class CallRates {
  private readonly calls: Rate;
  private readonly handshakes: Rate;

  constructor(clock: Clock) {
    this.calls = new Rate(CALLS_PER_SECOND, CALLS_BURST, clock);
    this.handshakes = new Rate(HANDSHAKES_PER_SECOND, HANDSHAKES_BURST, clock);
  }

  /**
   * Counts a call.
   * @param path the path of its method
   * @returns false when it is too soon for the call
   */
  take(path: string): boolean {
    return this.calls.take() && (path !== HANDSHAKE || this.handshakes.take());
  }
}

/** The rates of the callers whose names are known. */
export class NamedRates {
  private readonly clock: Clock;
  /** The rates by name. Only names on the agent's lists of peers and operators are asked for, which bounds the map. */
  private readonly byName = new Map<string, CallRates>();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  of(name: string): CallRates {
    const known = this.byName.get(name);
    if (known !== undefined) return known;
    const rates = new CallRates(this.clock);
    this.byName.set(name, rates);
    return rates;
  }
}
