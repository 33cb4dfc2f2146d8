/**
 * The links of the suite. Links without a length share one rig, whose cable is reshaped. The long link has its own rig.
 */

export interface SuiteLink {
  readonly name: string;
  /** Infinity is a link that is as fast as the machine. */
  readonly bitsPerSecond: number;
  readonly roundTripMs: number;
  /** A migration of a guest of 512 MiB that takes longer than this counts as one that does not converge. */
  readonly limitSeconds: number;
}

const LIMIT_IS_FOR_MIB = 512;

/** Gives the same link for a guest of another size: the limit is longer in proportion for a larger guest. */
export const forGuestOf = (memoryMiB: number, link: SuiteLink): SuiteLink => ({
  ...link,
  limitSeconds: Math.ceil(link.limitSeconds * Math.max(1, memoryMiB / LIMIT_IS_FOR_MIB)),
});

const of = (name: string, bitsPerSecond: number, limitSeconds: number, roundTripMs = 0): [string, SuiteLink] => [
  name,
  { name, bitsPerSecond, roundTripMs, limitSeconds },
];

export const LINKS: ReadonlyMap<string, SuiteLink> = new Map([
  of("1Gbit", 1e9, 15),
  of("100Mbit", 1e8, 60),
  of("10Gbit", 1e10, 15),
  of("unshaped", Number.POSITIVE_INFINITY, 15),
  of("1Gbit+20ms", 1e9, 15, 20),
]);
