/** The links of the suite. Those without a length share one rig and are reshaped; the long one is another cable. */

export interface SuiteLink {
  readonly name: string;
  /** Infinity: as fast as the machine. */
  readonly bitsPerSecond: number;
  readonly roundTripMs: number;
  /** A migration of a guest of 512 MiB that has not ended by then has not converged. */
  readonly limitSeconds: number;
}

const LIMIT_IS_FOR_MIB = 512;

/** The same link for a guest of another size: a larger one is given as much more time. */
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
