/**
 * Leaves the rules out one at a time (docs/design/ownership.md): the search finds what each rule prevents. A name has
 * the number of the rule, and says what the agents do without it.
 */
import { alone, along, ask, may, testMutations, within } from "./mutations.ts";
import { RULES } from "./rules.ts";

testMutations([
  ["1: no agent looks which process answers", { looksAtTheProcess: false }, within(1, 1, 0)],
  ["2: a QEMU that cannot be looked at counts as ended", { unknownIsNoEnd: false }, within(1, 0, 0)],
  ["4: the agent does not look before it grants", { looksBeforeGrant: false }, within(0, 1, 0)],
  ["4: a withdrawal is forgotten", { notesWithdrawal: false }, within(1, 1, 0)],
  [
    "4: askInDoubt() forgets a withdrawal",
    ask((qemu, another, _, isPostcopy) => RULES.askInDoubt(qemu, another, false, isPostcopy)),
    within(1, 1, 0),
  ],
  ["5: no plan is written over granted", { planOverGranted: false }, within(2, 0, 0)],
  [
    "5: no plan is written over granted, and cont is said all the same",
    { planOverGranted: false, sourceMayRun: () => true },
    within(2, 0, 0),
  ],
  ["5: cont is said while the grant may be on the disk", { sourceMayRun: () => true }, within(3, 0, 0)],
  [
    "6: a loaded destination gives up, and no refused copy is kept",
    { waitsLoaded: false, keepsUntilHeard: false },
    within(1, 0, 0),
  ],
  [
    "6: a loaded destination gives up",
    { waitsLoaded: false },
    alone("granted written", "source's host dies", "destination gives up", "source's host comes back"),
  ],
  ["6: a refused copy is not kept until its source has heard the refusal", { keepsUntilHeard: false }, within(0, 1, 0)],
  ["6: no mark is put into QEMU", { marks: false }, within(2, 0, 0)],
  ["6: refused is not written", { refusedFirst: false }, within(1, 0, 0)],
  ["7: a withdrawal is said only once", { tellsUntilHeard: false }, within(0, 1, 0)],
  ["8: a QEMU that has ended before the grant is no reason to wait", { orphans: false }, within(1, 0, 0)],
  ["9: the plan has no note of retiring", { notesRetiring: false }, within(1, 1, 0)],
  ["granted is not written", { grantedFirst: false }, within(1, 0, 0)],
  ["running is not written", { runningFirst: false }, within(1, 0, 0)],
  ["10: cont that is refused is tried for ever", { declines: false }, within(1, 0, 0)],
  ["11: cont is said without a look at the QEMU", { looksBeforeCont: false }, within(1, 1, 0)],
  ["cont is said beside another process", { looksBesideCont: false }, within(0, 1, 0)],
  ["refused is said without a look at the QEMU", { looksBeforeRefusal: false }, within(0, 1, 0)],
  [
    "13: a source that serves pages without contact is in no doubt",
    { doubtsSilence: false },
    within(1, 0, 0, "postcopy"),
  ],
  ["13: an old word is taken again", { freshWords: false }, within(1, 0, 0, "postcopy")],
  [
    "13: the keeper's end ends the stream, and there is no second monitor",
    { keepsStream: false, hasSecondMonitor: false },
    within(1, 0, 0, "postcopy"),
  ],
  ["13: there is no second monitor", { hasSecondMonitor: false }, within(2, 0, 0, "postcopy")],
  ["14: two copies are not shown", { showsDoubled: false }, within(0, 1, 0)],
  ["15: the destination takes no word", { destinationTakesWords: false }, within(1, 0, 0)],
  ["15: a QEMU that answers nobody is ended by no word", { endsUnseen: false }, within(2, 0, 0, "postcopy")],
  ["15: a word for the destination needs no proof", { wordNeedsProof: false }, within(1, 0, 0)],
  [
    "16: a guest with a plan may be started",
    may("source", "plan"),
    along(
      "loaded said",
      "source QEMU killed",
      "operator claims",
      "cont at the destination",
      "a supervisor starts the guest at the source",
    ),
  ],
  ["16: a guest that was granted may be started", may("source", "granted"), within(1, 0, 0)],
  ["16: a guest that was released may be started", may("source", "released"), within(0, 0, 0)],
  ["16: a guest that waits for its grant may be started", may("destination", "waiting"), within(1, 0, 0)],
  [
    "16: a guest that was started may be started again",
    may("destination", "running"),
    along(
      "running written$",
      "cont at the destination",
      "destination QEMU killed",
      "!destination agent crashes",
      "operator keeps the source$",
      "cont at the source",
      "a supervisor starts the guest at the destination",
    ),
  ],
  ["16: a guest that was refused may be started", may("destination", "refused"), within(1, 0, 0)],
]);
