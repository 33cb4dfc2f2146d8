/**
 * Searches the hand-over for broken promises (docs/decisions/0043). Each family of runs has a budget of what may happen
 * in one run, and within the budget everything is tried. FERRY_MODEL=deep searches further.
 */
import t from "tap";
import { within } from "./mutations.ts";
import { type Scope, search } from "./search.ts";
import { UNLIMITED } from "./world.ts";

t.setTimeout(600_000);

const FAMILIES: readonly (readonly [title: string, scope: Scope, statesMin: number])[] = [
  ["however often messages are lost", within(0, 0, 0), 300],
  ["any two faults of machines", within(2, 0, 0), 20_000],
  ["any fault and any act of somebody else", within(1, 1, 0), 20_000],
  ["any two acts of somebody else", within(0, 2, 0), 10_000],
  ["any fault and any two wrong words", within(1, 0, 2), 10_000],
  ["a paused guest, any two faults", within(2, 0, 0, "paused"), 20_000],
  ["a paused guest, any fault and any act", within(1, 1, 0, "paused"), 20_000],
  ["a paused guest, any fault and any wrong word", within(1, 0, 1, "paused"), 5_000],
  ["post-copy, any two faults", within(2, 0, 0, "postcopy"), 20_000],
  ["post-copy, any fault and any act", within(1, 1, 0, "postcopy"), 20_000],
  ["post-copy, any fault and any wrong word", within(1, 0, 1, "postcopy"), 5_000],
];

const DEEP: typeof FAMILIES = [
  ["any number of faults", within(UNLIMITED, 0, 0), 100_000],
  ["any three faults and a wrong word", within(3, 0, 1), 100_000],
  ["any two faults, and any act", within(2, 1, 0), 100_000],
  ["any fault, and any two acts", within(1, 2, 0), 100_000],
  ["any fault, any act and any wrong word", within(1, 1, 1), 100_000],
  ["a paused guest, any number of faults", within(UNLIMITED, 0, 0, "paused"), 100_000],
  ["a paused guest, any two faults, and any act", within(2, 1, 0, "paused"), 100_000],
  ["a paused guest, any fault, any act and any wrong word", within(1, 1, 1, "paused"), 100_000],
  ["post-copy, any three faults", within(3, 0, 0, "postcopy"), 100_000],
  ["post-copy, any two faults, and any act", within(2, 1, 0, "postcopy"), 100_000],
  ["post-copy, any two faults and a wrong word", within(2, 0, 1, "postcopy"), 100_000],
  ["post-copy, any fault and any two acts", within(1, 2, 0, "postcopy"), 100_000],
];

for (const [title, family, statesMin] of process.env.FERRY_MODEL === "deep" ? DEEP : FAMILIES)
  t.test(`${title}: no agent adds a copy or throws the only copy away, and an end is in reach`, async (t) => {
    const startMs = performance.now();
    const { broken, states, ends } = search(family);
    t.equal(broken?.promise, undefined, broken === undefined ? "no promise is broken" : broken.way.join("\n"));
    t.comment(`${states} worlds in ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
    t.ok(states > statesMin, "the search has found more worlds than the least that is expected");
    t.ok(ends.has("kept and discarded"), "some run ends with the guest kept");
    t.ok(ends.has("released and arrived"), "some run ends with the guest moved");
  });
