/** Leaves out or changes rules and rows of tables, and tests what the search finds then. */
import t from "tap";
import type { DestinationQemu } from "../../shared/protocol/destination-states.ts";
import { breaks, type Schedule } from "./replay.ts";
import { RULES, type Rules } from "./rules.ts";
import { type Scope, search } from "./search.ts";
import type { Manner } from "./world.ts";

export type Change = Partial<Rules>;
type Where = Scope | Schedule;
export const within = (faults: number, acts: number, wrongWords: number, manner: Manner = "precopy"): Scope => ({
  manner,
  faults,
  acts,
  wrongWords,
});
export const along = (...steps: readonly string[]): Schedule => ({ manner: "precopy", steps });
export const alone = (...steps: readonly string[]): Schedule => ({ ...along(...steps), alone: true });
export const postcopy = (...steps: readonly string[]): Schedule => ({ manner: "postcopy", steps });

export const source = (
  row: (...of: Parameters<Rules["recoverSource"]>) => ReturnType<Rules["recoverSource"]> | undefined,
): Change => ({
  recoverSource: (...of) => row(...of) ?? RULES.recoverSource(...of),
});
export type Recovered = ReturnType<Rules["recoverDestination"]>;
export const destination = (record: string, qemu: DestinationQemu, to: Recovered): Change => ({
  recoverDestination: (...of) => (of[0] === record && of[1] === qemu ? to : RULES.recoverDestination(...of)),
});
export const ask = (
  row: (...of: Parameters<Rules["askInDoubt"]>) => ReturnType<Rules["askInDoubt"]> | undefined,
): Change => ({
  askInDoubt: (...of) => row(...of) ?? RULES.askInDoubt(...of),
});
export const may = (side: "source" | "destination", kind: string): Change => ({
  mayStart: (word, lives) =>
    word?.side === side && word.record.kind === kind
      ? { may: true, passing: false, because: "" }
      : RULES.mayStart(word, lives),
});
export const standing = (state: string, to: ReturnType<Rules["standingOf"]>): Change => ({
  standingOf: (...of) => (of[0] === state ? to : RULES.standingOf(...of)),
});

export const ASKED = [
  "granted written",
  "no answer",
  "operator keeps the source, which is asked for",
  "destination hears withdraw",
];
export const MARKED = [...ASKED, "destination's disk is full", "the mark is put into QEMU"];
/** Steps after which the refusal is heard, and the guest goes on at the source. */
export const TAKEN_BACK = [...ASKED, "refused written", "refused said", "source hears refused", "cont at the source"];
/** Steps after which the journal says `running`, which no agent knows, and a mark refuses the guest. */
export const REFUSED_LATE = [
  "grant said",
  "running written, and reported as failed",
  "destination's disk is full",
  "the mark is put into QEMU",
  "refused said",
];
export const AGAIN = ["destination agent crashes", "destination agent starts"];
export const CONT = "somebody says cont at the destination";
export const TRUSTS = ["operator keeps the source, since", "cont at the source"];

export type Mutation = readonly [name: string, change: Change, where: Where];

/** Tests that each mutation breaks a promise. A promise that breaks on a schedule must not break by the rules. */
export function testMutations(mutations: readonly Mutation[]): void {
  t.setTimeout(600_000);
  for (const [name, change, where] of mutations)
    t.test(name, async (t) => {
      const rules = { ...RULES, ...change };
      const found = "steps" in where ? breaks(where, rules) : search(where, rules).broken;
      const promise = found === undefined ? undefined : "promise" in found ? found.promise : found.broken;
      t.ok(promise, "a promise breaks");
      t.comment(`${promise}, in ${found?.way.length} steps`);
      if ("steps" in where)
        t.equal(breaks(where, RULES)?.broken, undefined, "no promise breaks by the rules on this schedule");
    });
}
