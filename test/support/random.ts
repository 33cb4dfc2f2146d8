/** Makes random numbers that a seed decides, so that a run can be repeated. */

/**
 * Makes a generator (mulberry32) whose numbers are the same on every machine, and good enough to choose faults by.
 * @returns a function that gives the next number, from 0 inclusive to 1 exclusive
 */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
