/** Tests that the state tables are whole, and that docs/states.md draws them. RESET_RESULTS=1 draws them again. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { DESTINATION_STATES, recoverDestination, standingOf } from "../../../shared/protocol/destination-states.ts";
import {
  afterSource,
  askInDoubt,
  recoverSource,
  SOURCE_STATES,
  sourceStatus,
} from "../../../shared/protocol/source-states.ts";
import { packageRoot } from "../../../shared/runtime/package-root.ts";

type Table = Readonly<Record<string, Readonly<Record<string, string>>>>;
/** `first` says where a migration begins; a destination agent that starts again begins with *adopting*. */
const tables: readonly (readonly [title: string, table: Table, first: readonly string[]])[] = [
  ["Source", SOURCE_STATES, ["planned"]],
  ["Destination", DESTINATION_STATES, ["negotiating", "adopting"]],
];

function draw(table: Table, first: readonly string[]): string {
  const lines = ["stateDiagram-v2", ...first.map((state) => `    [*] --> ${state}`)];
  for (const [state, outcomes] of Object.entries(table)) {
    for (const [outcome, next] of Object.entries(outcomes)) lines.push(`    ${state} --> ${next}: ${outcome}`);
    if (Object.keys(outcomes).length === 0) lines.push(`    ${state} --> [*]`);
  }
  return ["```mermaid", ...lines, "```"].join("\n");
}

function reachable(table: Table, ...from: readonly string[]): Set<string> {
  const seen = new Set<string>();
  const walk = (state: string): void => {
    if (seen.has(state)) return;
    seen.add(state);
    for (const next of Object.values(table[state] ?? {})) walk(next);
  };
  from.forEach(walk);
  return seen;
}

for (const [title, table, first] of tables) {
  t.test(`every state of the ${title.toLowerCase()} can be reached, and leads to an end`, async (t) => {
    t.same([...reachable(table, ...first)].sort(), Object.keys(table).sort());
    for (const state of Object.keys(table))
      t.ok(
        [...reachable(table, state)].some((one) => Object.keys(table[one] ?? {}).length === 0),
        `${state} ends`,
      );
  });
}

t.test("until the grant is on the disk, every fault of the source leads back", async (t) => {
  const before = ["planned", "negotiating", "staging", "copying", "switching", "retiring", "recording"] as const;
  for (const state of before) t.equal(afterSource(state, "fault"), "keeping", state);
  t.equal(afterSource("granting", "fault"), "inDoubt", "then only proof leads back");
});

t.test("once the guest may have run, only QEMU's own refusal of cont leads to a refusal", async (t) => {
  const refusals = ["refusing", "withheld", "discarding", "discarded"];
  for (const state of ["starting", "pulling"] as const)
    for (const [outcome, next] of Object.entries(DESTINATION_STATES[state]))
      t.equal(refusals.includes(next), outcome === "declined", `${state}, ${outcome}`);
  t.same(Object.values(DESTINATION_STATES.withheld).sort(), [
    "discarding",
    "discarding",
    "doubled",
    "owning",
    "withheld",
  ]);
});

t.test("a source agent that starts again goes on by its record and by what its QEMU says", async (t) => {
  const qemus = ["active", "retired", "gone", "unknown"] as const;
  for (const qemu of qemus) {
    t.equal(recoverSource("plan", qemu, false), "keeping", "nothing was granted");
    t.equal(recoverSource("granted", qemu, false), "inDoubt", "nothing that this QEMU does is a proof");
    t.equal(recoverSource("released", qemu, false), qemu === "gone" ? "released" : "releasing");
    t.equal(recoverSource("kept", qemu, false), "kept");
    t.equal(recoverSource("kept", qemu, true), "withdrawing", "the destination has not heard it");
  }
});

t.test("an agent in doubt grants only what nobody runs here, and what it has not withdrawn", async (t) => {
  t.equal(askInDoubt("retired", false, false, false), "grant");
  t.equal(askInDoubt("gone", false, false, false), "grant");
  t.equal(askInDoubt("active", false, false, false), "withdraw");
  t.equal(askInDoubt("unknown", false, false, false), "standing", "what cannot be seen is not granted");
  for (const qemu of ["active", "retired", "gone", "unknown"] as const) {
    for (const isPostcopy of [false, true])
      t.equal(askInDoubt(qemu, true, false, isPostcopy), "withdraw", "another process runs the guest");
    t.not(askInDoubt(qemu, false, true, false), "grant", "the guest has run here since");
  }
  t.equal(askInDoubt("retired", false, false, true), "grant");
  t.equal(askInDoubt("gone", false, false, true), "withdraw", "nobody has the missing pages any more");
  t.equal(askInDoubt("gone", false, true, true), "withdraw");
});

const RECOVERED = {
  waiting: {
    ...{ loading: "refusing", loaded: "loaded", marked: "withheld", pulling: "pulling" },
    ...{ running: "arrived", moved: "arrived", started: "doubled", gone: "refusing" },
  },
  running: {
    ...{ loading: "starting", loaded: "starting", marked: "refusing", pulling: "pulling" },
    ...{ running: "arrived", moved: "arrived", started: "doubled", gone: "lost" },
  },
  arrived: {
    ...{ loading: "arrived", loaded: "arrived", marked: "arrived", pulling: "arrived" },
    ...{ running: "arrived", moved: "arrived", started: "arrived", gone: "arrived" },
  },
  refused: {
    ...{ loading: "discarding", loaded: "withheld", marked: "withheld", pulling: "doubled" },
    ...{ running: "doubled", moved: "doubled", started: "doubled", gone: "discarding" },
  },
} as const;

t.test("a destination agent that starts again goes on by its record and by what its QEMU says", async (t) => {
  for (const [record, row] of Object.entries(RECOVERED))
    for (const [qemu, state] of Object.entries(row))
      t.equal(
        recoverDestination(record as keyof typeof RECOVERED, qemu as keyof typeof row, false),
        state,
        `${record} and ${qemu}`,
      );
  t.equal(recoverDestination("refused", "loaded", true), "discarding", "the source has heard the refusal");
});

t.test("a destination answers with what it has made durable, depending on what it is asked", async (t) => {
  for (const ask of ["standing", "grant", "withdraw", "kept"] as const) {
    for (const state of ["loading", "loaded", "refusing", "adopting"] as const)
      t.equal(standingOf(state, ask, true), "waiting", `${state}, asked ${ask}`);
    for (const state of ["owning", "starting"] as const) t.equal(standingOf(state, ask, true), "starting");
    for (const state of ["arrived", "doubled"] as const) {
      t.equal(standingOf(state, ask, true), "running");
      t.equal(standingOf(state, ask, false), "lost", "the guest has run, and cannot go on");
    }
    t.equal(standingOf("lost", ask, false), "lost");
    t.equal(standingOf("discarded", ask, false), "refused");
    const hasACopy = ask === "grant" || ask === "withdraw";
    t.equal(standingOf("withheld", ask, true), hasACopy ? "refused" : "waiting", `withheld, asked ${ask}`);
    t.equal(standingOf("discarding", ask, true), ask === "kept" ? "waiting" : "refused", `discarding, asked ${ask}`);
  }
});

t.test("the operator sees each state of the source as a status", async (t) => {
  t.equal(sourceStatus("staging", false), "preparing");
  t.equal(sourceStatus("inDoubt", false), "inDoubt");
  t.equal(sourceStatus("released", false), "moved");
  t.equal(sourceStatus("kept", false), "failed");
  t.equal(sourceStatus("kept", true), "cancelled");
  t.equal(sourceStatus("serving", false), "serving");
  t.equal(sourceStatus("stranded", false), "failed");
  t.equal(sourceStatus("orphaned", false), "inDoubt", "an operator decides");
  t.equal(sourceStatus("doubled", false), "doubled");
  t.equal(sourceStatus("withdrawing", false), "failed", "the guest is at the source already");
  t.equal(sourceStatus("withdrawing", true), "cancelled");
});

t.test("the diagrams in docs/states.md are the ones of the tables", async (t) => {
  const path = join(packageRoot(), "docs/states.md");
  const drawn = [
    "# The states of a migration",
    "",
    "Drawn from `shared/protocol/source-states.ts` and `destination-states.ts`, which say what each state means, by their test.",
    "",
    ...tables.flatMap(([title, table, first]) => [`## ${title}`, "", draw(table, first), ""]),
  ].join("\n");
  if (process.env.RESET_RESULTS === "1") writeFileSync(path, drawn);
  t.equal(existsSync(path) ? readFileSync(path, "utf8") : "", drawn);
});
