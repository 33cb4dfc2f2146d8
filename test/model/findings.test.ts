/**
 * What a review of the hand-over has found (docs/decisions/0043), each as a schedule that is possible and ends well.
 * Without the rule that answers the finding, a promise breaks.
 */
import t from "tap";
import { isPassedOver, nextSequence } from "../../shared/protocol/ownership.ts";
import { isSettled } from "./promises.ts";
import { breaks, runWith } from "./replay.ts";
import { RULES, type Rules } from "./rules.ts";
import { type Scope, search } from "./search.ts";
import type { Manner, World } from "./world.ts";

t.setTimeout(600_000);

interface Finding {
  readonly name: string;
  readonly manner?: Manner;
  /** The beginnings of the names of the steps, in their order. */
  readonly schedule: readonly string[];
  /** True for the world in which the schedule is to end, when nothing is left to be done. */
  readonly end: (world: World) => boolean;
  /** The rules as they were before the finding. */
  readonly without: Partial<Rules>;
  readonly scope: Omit<Scope, "manner">;
}

const runsHere = ({ sourceQemu, destinationQemu }: World): boolean =>
  sourceQemu === "running" && destinationQemu === "gone";
const runsThere = ({ sourceQemu, destinationQemu }: World): boolean =>
  sourceQemu === "gone" && destinationQemu === "running";

const scope = (faults: number, acts: number, wrongWords: number) => ({ faults, acts, wrongWords });

const FINDINGS: readonly Finding[] = [
  {
    name: "F1: a destination with a full disk refuses by a mark, until it is heard, and the source goes on",
    schedule: [
      "granted written",
      "grant said",
      "destination's disk is full",
      "destination takes the grant",
      "running not written",
      "the mark is put into QEMU",
      "refused said",
      "refused is lost",
      "source hears refused",
      "cont at the source",
    ],
    end: runsHere,
    without: { marks: false },
    scope: scope(2, 0, 0),
  },
  {
    name: "F1: a destination that only waits is no proof for a word, which would end the source's copy",
    schedule: [
      "granted written",
      "no answer",
      "destination agent crashes",
      "destination agent starts",
      "cont at the destination",
    ],
    end: runsThere,
    without: { wordNeedsProof: false },
    scope: scope(1, 0, 0),
  },
  {
    name: "F2: the source's host dies behind the grant and comes back: the loaded guest has waited, and runs",
    schedule: [
      "granted written",
      "source's host dies",
      "source's host comes back",
      "grant said",
      "cont at the destination",
    ],
    end: runsThere,
    without: { waitsLoaded: false, keepsUntilHeard: false },
    scope: scope(1, 0, 0),
  },
  {
    name: "F2: the source's host dies before the grant for good: an operator starts the guest at the destination",
    schedule: ["loaded said", "source's host dies", "operator claims the guest", "cont at the destination"],
    end: ({ source, destinationQemu }) => source === "off" && destinationQemu === "running",
    without: { destinationTakesWords: false },
    scope: scope(1, 0, 0),
  },
  {
    name: "F4, e5: a guest that somebody else has migrated away is not started by an agent that finds a plan",
    schedule: ["source agent crashes", "somebody says migrate at the source", "source agent starts", "kept written"],
    end: ({ sourceQemu }) => sourceQemu === "moved",
    without: { notesRetiring: false },
    scope: scope(1, 1, 0),
  },
  {
    name: "F4, e9: a guest that was started anew beside a grant is withdrawn at the destination first",
    schedule: [
      "granted written",
      "source's host dies",
      "source's host comes back",
      "somebody who does not ask starts the guest anew",
      "withdrawn written",
      "source says withdraw in doubt",
    ],
    end: ({ sourceOther, destinationQemu, source }) => sourceOther && destinationQemu === "gone" && source === "kept",
    without: { looksAtTheProcess: false },
    scope: scope(1, 1, 0),
  },
  {
    name: "F4, e9: two copies that a supervisor has made are shown",
    schedule: [
      "cont at the destination",
      "source's host dies",
      "source's host comes back",
      "somebody who does not ask starts the guest anew",
      "source hears that the guest runs there too",
    ],
    end: ({ shown }) => shown,
    without: { showsDoubled: false },
    scope: scope(1, 1, 0),
  },
  {
    name: "F5: somebody says cont in doubt: the agent looks before it repeats the grant, and withdraws",
    schedule: ["granted written", "the grant is lost", "somebody says cont at the source", "withdrawn written"],
    end: runsHere,
    without: { looksBeforeGrant: false },
    scope: scope(0, 1, 0),
  },
  {
    name: "F5k: the keeper ends, and the page stream stays",
    manner: "postcopy",
    schedule: ["runs and pulls", "the keeper is killed", "another keeper takes its place", "pages served"],
    end: runsThere,
    without: { keepsStream: false, hasSecondMonitor: false },
    scope: scope(1, 0, 0),
  },
  {
    name: "F5k: keeper and page stream are lost, and a second monitor takes the stream up",
    manner: "postcopy",
    schedule: ["runs and pulls", "the keeper is killed", "the page stream breaks", "the page stream is taken up again"],
    end: runsThere,
    without: { hasSecondMonitor: false },
    scope: scope(2, 0, 0),
  },
  {
    name: "keeper and agent end while QEMU waits for a page: an operator can end the QEMU, which answers nobody",
    manner: "postcopy",
    schedule: [
      "runs and pulls",
      "the keeper is killed",
      "destination agent crashes",
      "destination agent starts and cannot tell what its QEMU does",
      "operator ends the QEMU that answers nobody",
      "operator keeps the source",
      "cont at the source",
    ],
    end: runsHere,
    without: { endsUnseen: false },
    scope: scope(2, 0, 0),
  },
  {
    name: "F6: a QEMU that has been the source of a later migration is not started by an agent that finds `running`",
    schedule: [
      "cont at the destination",
      "destination agent crashes",
      "somebody says migrate at the destination",
      "destination agent starts",
    ],
    end: ({ destination, destinationQemu }) => destination === "arrived" && destinationQemu === "moved",
    without: {
      looksBeforeCont: false,
      recoverDestination: (record, qemu, heard) =>
        qemu === "moved" && record === "running" ? "starting" : RULES.recoverDestination(record, qemu, heard),
    },
    scope: scope(1, 1, 0),
  },
  {
    name: "F7: a second doubt takes a word of its own",
    manner: "postcopy",
    schedule: [
      "no answer",
      "runs and pulls",
      "operator keeps the destination",
      "source takes the word",
      "destination's host dies",
      "no contact",
      "operator keeps the source",
      "cont at the source",
    ],
    end: ({ sourceQemu }) => sourceQemu === "running",
    without: { freshWords: false },
    scope: scope(1, 0, 0),
  },
  {
    name: "F8: the destination's host dies in post-copy for good: the source is in doubt, and an operator keeps it",
    manner: "postcopy",
    schedule: [
      "source hears pulling",
      "destination's host dies",
      "no contact",
      "operator keeps the source",
      "cont at the source",
    ],
    end: ({ sourceQemu, destination }) => sourceQemu === "running" && destination === "off",
    without: { doubtsSilence: false },
    scope: scope(1, 0, 0),
  },
  {
    name: "F10: an agent that ended between `released` and the quit ends that QEMU when it starts again",
    schedule: ["released written", "source agent crashes", "source agent starts", "source QEMU ended by the agent"],
    end: runsThere,
    without: {
      recoverSource: (record, qemu, untold) =>
        record === "released" ? "released" : RULES.recoverSource(record, qemu, untold),
    },
    scope: scope(1, 0, 0),
  },
  {
    name: "F11: what was left of a migration is not taken for another process that runs the guest",
    schedule: [
      "arrived written",
      "source's host dies",
      "source's host comes back",
      "somebody who does not ask starts the guest anew",
      "source agent starts",
      "source hears that the guest runs there too",
    ],
    end: ({ sourceOther, shown }) => sourceOther && shown,
    without: { looksAtTheProcess: false, showsDoubled: false },
    scope: scope(1, 1, 0),
  },
  {
    name: "F12: a guest that had arrived and has ended is lost to a source in doubt, which waits for a word",
    schedule: [
      "arrived written",
      "destination QEMU killed",
      "operator keeps the destination",
      "source QEMU ended by the agent",
    ],
    end: ({ source, lossExcused }) => source === "released" && lossExcused,
    without: { standingOf: (state, ask) => RULES.standingOf(state, ask, true) },
    scope: scope(1, 0, 0),
  },
  {
    name: "F15: a QEMU that cannot be looked at has not ended",
    schedule: [
      "cont at the destination",
      "destination agent crashes",
      "destination agent starts and cannot tell",
      "destination can tell what its QEMU does",
    ],
    end: runsThere,
    without: { unknownIsNoEnd: false },
    scope: scope(1, 0, 0),
  },
  {
    name: "cont that is refused by a lock is a refusal, and the guest goes on at the source",
    schedule: [
      "running written",
      "an image of the destination is locked",
      "cont is refused",
      "source hears refused",
      "cont at the source",
    ],
    end: runsHere,
    without: { declines: false },
    scope: scope(1, 0, 0),
  },
];

for (const { name, manner = "precopy", schedule, end, without, scope } of FINDINGS)
  t.test(name, async (t) => {
    const steps = { manner, steps: schedule };
    t.ok(
      runWith(steps, (world) => isSettled(world) && end(world)),
      "the schedule is possible, and ends in this world",
    );
    t.equal(breaks(steps, RULES)?.broken, undefined, "no promise breaks by the rules");
    const rules = { ...RULES, ...without };
    const along = breaks(steps, rules);
    if (along !== undefined) t.comment(`this schedule breaks: ${along.broken}, in ${along.way.length} steps`);
    const { broken } = search({ manner, ...scope }, rules);
    t.ok(broken, "without the rule a promise breaks");
    t.comment(`${broken?.promise}, in ${broken?.way.length} steps`);
  });

t.test("F9: a number orders the records, whatever the clock says", async (t) => {
  const hour = 3_600_000;
  const ended = { kind: "kept", sequence: nextSequence([], 10 * hour) } as const;
  const later = nextSequence([ended], 9 * hour);
  t.ok(later > ended.sequence, "a clock that was set back makes no earlier record");
  t.equal(isPassedOver({ kind: "plan", sequence: ended.sequence }, [{ sequence: later }]), true, "e3b");
  t.equal(isPassedOver({ kind: "plan", sequence: later }, [ended]), false);
});

t.test("F9, e3: a grant is never passed over", async (t) => {
  for (const sequence of [1, 2, 3]) t.equal(isPassedOver({ kind: "granted", sequence }, [{ sequence: 2 }]), false);
});
