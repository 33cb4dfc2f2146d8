/** The state tables: whole, and drawn in docs/states.md. RESET_RESULTS=1 draws them anew. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { DESTINATION_STATES, recoverDestination } from "../../../shared/protocol/destination-states.ts";
import { afterSource, recoverSource, SOURCE_STATES, sourceStatus } from "../../../shared/protocol/source-states.ts";
import { packageRoot } from "../../../shared/runtime/package-root.ts";

type Table = Readonly<Record<string, Readonly<Record<string, string>>>>;
const tables: readonly (readonly [title: string, table: Table, first: string])[] = [
  ["Source", SOURCE_STATES, "planned"],
  ["Destination", DESTINATION_STATES, "negotiating"],
];

function draw(table: Table, first: string): string {
  const lines = ["stateDiagram-v2", `    [*] --> ${first}`];
  for (const [state, outcomes] of Object.entries(table)) {
    for (const [outcome, next] of Object.entries(outcomes)) lines.push(`    ${state} --> ${next}: ${outcome}`);
    if (Object.keys(outcomes).length === 0) lines.push(`    ${state} --> [*]`);
  }
  return ["```mermaid", ...lines, "```"].join("\n");
}

function reachable(table: Table, from: string): Set<string> {
  const seen = new Set<string>();
  const walk = (state: string): void => {
    if (seen.has(state)) return;
    seen.add(state);
    for (const next of Object.values(table[state] ?? {})) walk(next);
  };
  walk(from);
  return seen;
}

for (const [title, table, first] of tables) {
  t.test(`every state of the ${title.toLowerCase()} can be reached, and leads to an end`, async (t) => {
    t.same([...reachable(table, first)].sort(), Object.keys(table).sort());
    for (const state of Object.keys(table))
      t.ok(
        [...reachable(table, state)].some((one) => Object.keys(table[one] ?? {}).length === 0),
        `${state} ends`,
      );
  });
}

t.test("until the grant is on the disk every fault of the source leads back", async (t) => {
  const before = ["planned", "negotiating", "staging", "copying", "switching", "retiring", "recording"] as const;
  for (const state of before) t.equal(afterSource(state, "fault"), "keeping", state);
  t.equal(afterSource("granting", "fault"), "inDoubt", "then only proof does");
});

t.test("once the guest may have run no fault of the destination leads to a refusal", async (t) => {
  const from = reachable(DESTINATION_STATES, "starting");
  t.same([...from].sort(), ["arrived", "lost", "pulling", "starting"]);
});

t.test("an agent that starts again goes on from its record and what its QEMU says", async (t) => {
  t.equal(recoverSource("plan", "retired"), "keeping", "nothing was granted");
  t.equal(recoverSource("granted", "retired"), "inDoubt");
  t.equal(recoverSource("granted", "gone"), "inDoubt", "the destination may have it");
  t.equal(recoverSource("granted", "active"), "keeping", "it was given back before");
  t.equal(recoverSource("released", "gone"), "released");
  t.equal(recoverDestination("waiting", "loaded"), "loaded", "it may have been granted");
  t.equal(recoverDestination("waiting", "loading"), "refusing");
  t.equal(recoverDestination("running", "loaded"), "starting");
  t.equal(recoverDestination("running", "gone"), "lost");
  t.equal(recoverDestination("refused", "loaded"), "discarding");
  t.equal(recoverDestination("running", "pulling"), "pulling", "its pages are still at the source");
  t.equal(recoverDestination("running", "running"), "arrived");
});

t.test("the operator sees each state of the source as a status", async (t) => {
  t.equal(sourceStatus("staging", false), "preparing");
  t.equal(sourceStatus("inDoubt", false), "inDoubt");
  t.equal(sourceStatus("released", false), "moved");
  t.equal(sourceStatus("kept", false), "failed");
  t.equal(sourceStatus("kept", true), "cancelled");
  t.equal(sourceStatus("serving", false), "serving");
  t.equal(sourceStatus("stranded", false), "failed");
});

t.test("the diagrams in docs/states.md are those of the tables", async (t) => {
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
