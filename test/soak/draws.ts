/** What is done to the guest's disks before and while it is moved: one migration after the other, from a seed. */
import { STRATEGIES, type Strategy } from "../../shared/protocol/messages.ts";
import { generator } from "../support/random.ts";

/** What an operator does while the guest runs, before the migration; `unedited`: the definitions stay as they were. */
export const BEFORE = [
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

/** What is done to the guest's disks while the guest is copied, or at any time behind the command. */
export const DURING = [
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
  /** From the first copied pages to what is done meanwhile, milliseconds. */
  readonly afterMs: number;
  /** Of the lock: how often it is taken, and for how long, milliseconds. */
  readonly locks: number;
  readonly lockedMs: number;
}

/** On the slow link a migration takes some seconds, so that what is done meanwhile meets each part of it. */
const RATES = [1e9, 1e9, 200e6] as const;
const AFTER_MAX_MS = 3000;
const LOCKS_MAX = 3;
const LOCKED_MAX_MS = 1500;

/** Of 100. A merge that has nothing to merge is drawn as nothing. */
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

/** Before these the migration is to be refused, so nothing is done while it goes on. */
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
  // the same count of numbers each time: what becomes of one migration moves no draw of a later one
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
