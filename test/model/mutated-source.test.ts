/**
 * Changes the rows of recoverSource(), askInDoubt() and standingOf() one at a time: the search finds what each row
 * prevents. A name says what the row is for, and what the changed row makes the agent do.
 */
import { alone, along, ask, source, standing, testMutations, within } from "./mutations.ts";
import { RULES } from "./rules.ts";

testMutations([
  ["plan: kept at once", source((record) => (record === "plan" ? "kept" : undefined)), within(1, 0, 0)],
  ["plan: in doubt", source((record) => (record === "plan" ? "inDoubt" : undefined)), within(1, 0, 0)],
  [
    "granted and active: kept, and said once",
    {
      ...source((record, qemu) => (record === "granted" && qemu === "active" ? "keeping" : undefined)),
      tellsUntilHeard: false,
    },
    along(
      "cont at the destination",
      "running is lost",
      "source agent crashes",
      "somebody says cont at the source",
      "source agent starts",
      "kept written$",
    ),
  ],
  [
    "granted and retired: kept",
    source((record, qemu) => (record === "granted" && qemu === "retired" ? "keeping" : undefined)),
    within(1, 0, 0),
  ],
  [
    "granted and gone: kept",
    source((record, qemu) => (record === "granted" && qemu === "gone" ? "keeping" : undefined)),
    alone("granted written$", "!source's host dies", "source's host comes back"),
  ],
  [
    "granted and unknown: kept",
    source((record, qemu) => (record === "granted" && qemu === "unknown" ? "keeping" : undefined)),
    within(1, 0, 0),
  ],
  ["released: over at once", source((record) => (record === "released" ? "released" : undefined)), within(1, 0, 0)],
  ["kept and untold: over at once", source((record) => (record === "kept" ? "kept" : undefined)), within(1, 1, 0)],
  [
    "in doubt, active: granted",
    ask((qemu, other) => (qemu === "active" && !other ? "grant" : undefined)),
    within(0, 1, 0),
  ],
  [
    "in doubt, active: only asked",
    ask((qemu, other) => (qemu === "active" && !other ? "standing" : undefined)),
    alone("granted written$", "!somebody says cont at the source"),
  ],
  ["in doubt, another runs: granted", ask((_, other) => (other ? "grant" : undefined)), within(0, 1, 0)],
  [
    "in doubt, retired: only asked",
    ask((qemu, other) => (qemu === "retired" && !other ? "standing" : undefined)),
    alone("no answer"),
  ],
  [
    "in doubt, gone: only asked",
    ask((qemu, other) => (qemu === "gone" && !other ? "standing" : undefined)),
    alone("granted written$", "!source's host dies", "source's host comes back"),
  ],
  [
    "in doubt, gone: withdrawn",
    ask((qemu, other) => (qemu === "gone" && !other ? "withdraw" : undefined)),
    alone("granted written$", "!source's host dies", "source's host comes back"),
  ],
  [
    "in doubt, unknown: granted",
    ask((qemu, other) => (qemu === "unknown" && !other ? "grant" : undefined)),
    within(0, 1, 0),
  ],
  [
    "loaded is refused",
    standing("loaded", "refused"),
    alone(
      "loaded said",
      "source gives up",
      "kept written$",
      "source says that it keeps",
      "kept, which was heard, written$",
      "withdraw is lost",
    ),
  ],
  ["starting is running", standing("starting", "running"), within(1, 0, 0)],
  ["pulling is running", standing("pulling", "running"), within(0, 0, 0, "postcopy")],
  [
    "arrived is always running",
    { standingOf: (state, asked) => RULES.standingOf(state, asked, true) },
    within(1, 0, 0),
  ],
  ["arrived is lost", standing("arrived", "lost"), alone("arrived written", "no answer")],
  [
    "withheld is refused to who only asks",
    standing("withheld", "refused"),
    alone(
      "loaded said",
      "operator gives the destination's copy up",
      "refused written",
      "source QEMU killed",
      "kept written",
    ),
  ],
  [
    "discarding has heard it",
    standing("discarding", "refused"),
    alone(
      "loaded said",
      "source gives up",
      "kept written$",
      "source says that it keeps",
      "destination hears withdraw",
      "refused written",
      "destination's disk is full",
      "refused and heard not written",
      "kept, which was heard, written$",
      "!destination agent crashes",
    ),
  ],
]);
