/** Draws from a seed what is done to the guest's disks before and during each migration. */
import { STRATEGIES, type Strategy } from "../../shared/protocol/messages.ts";
import { generator } from "../support/random.ts";

/** What an operator does before the migration, while the guest runs. `unedited` leaves the definitions as they were. */
const BEFORE = [
  "nothing",
  "snapshot",
  "snapshot, unedited",
  "merge",
  "merge, unedited",
  "merge under way",
  "change medium",
  "eject medium",
] as const;
export type Before = (typeof BEFORE)[number];

/** What is done to the guest's disks at a random time after the first pages have come. */
const DURING = [
  "nothing",
  "lock at destination",
  "snapshot",
  "begin merge",
  "whole merge",
  "change medium",
  "eject medium",
] as const;
export type During = (typeof DURING)[number];

export interface Draw {
  readonly strategy: Strategy;
  readonly bitsPerSecond: number;
  readonly before: Before;
  readonly during: During;
  /** The time from the first copied pages to what is done then, milliseconds. */
  readonly afterMs: number;
  /** How often the lock of the image is taken at most, and for how long each time, milliseconds. */
  readonly locks: number;
  readonly lockedMs: number;
}

/** On the slow link a migration takes some seconds, so that what is done meanwhile meets each part of it. */
const RATES = [1e9, 1e9, 200e6] as const;
const AFTER_MAX_MS = 3000;
const LOCKS_MAX = 3;
const LOCKED_MAX_MS = 1500;

/** Weights, which add up to 100. A merge is left out where there is nothing to merge. */
const BEFORE_WEIGHTS: Readonly<Record<Before, number>> = {
  nothing: 34,
  snapshot: 16,
  "snapshot, unedited": 8,
  merge: 14,
  "merge, unedited": 6,
  "merge under way": 6,
  "change medium": 10,
  "eject medium": 6,
};
const DURING_WEIGHTS: Readonly<Record<During, number>> = {
  nothing: 30,
  "lock at destination": 25,
  snapshot: 15,
  "begin merge": 6,
  "whole merge": 8,
  "change medium": 10,
  "eject medium": 6,
};

/** After these the migration must be refused with this code, so nothing is done during it. */
export const REFUSED: Readonly<Partial<Record<Before, string>>> = {
  "snapshot, unedited": "disks",
  "merge, unedited": "disks",
  "merge under way": "block-job",
};

export function draws(seed: number): () => Draw {
  const random = generator(seed);
  const pick = <Name extends string>(weights: Readonly<Record<Name, number>>): Name => {
    const names = Object.keys(weights) as Name[];
    let left = random() * names.reduce((sum, name) => sum + weights[name], 0);
    for (const name of names) {
      left -= weights[name];
      if (left < 0) return name;
    }
    return names[0]!;
  };
  // each draw takes the same count of random numbers, so the end of one migration changes no later draw
  return () => {
    const strategy = STRATEGIES[Math.floor(random() * STRATEGIES.length)]!;
    const bitsPerSecond = RATES[Math.floor(random() * RATES.length)]!;
    const before = pick(BEFORE_WEIGHTS);
    const during = pick(DURING_WEIGHTS);
    return {
      ...{ strategy, bitsPerSecond, before, during: REFUSED[before] === undefined ? during : "nothing" },
      afterMs: random() * AFTER_MAX_MS,
      locks: 1 + Math.floor(random() * LOCKS_MAX),
      lockedMs: 100 + random() * LOCKED_MAX_MS,
    };
  };
}
