/** The state tables: whole, and drawn in docs/states.md. RESET_RESULTS=1 draws them anew. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { DESTINATION_EDGES } from "../../../shared/protocol/destination-states.ts";
import { SOURCE_EDGES, sourceStatus } from "../../../shared/protocol/source-states.ts";
import { packageRoot } from "../../../shared/runtime/package-root.ts";

type Table = Readonly<Record<string, readonly string[]>>;
const tables: readonly (readonly [title: string, table: Table, first: string])[] = [
  ["Source", SOURCE_EDGES, "planned"],
  ["Destination", DESTINATION_EDGES, "negotiating"],
];

function draw(table: Table, first: string): string {
  const lines = ["stateDiagram-v2", `    [*] --> ${first}`];
  for (const [state, next] of Object.entries(table)) {
    for (const one of next) lines.push(`    ${state} --> ${one}`);
    if (next.length === 0) lines.push(`    ${state} --> [*]`);
  }
  return ["```mermaid", ...lines, "```"].join("\n");
}

function reachable(table: Table, from: string): Set<string> {
  const seen = new Set<string>();
  const walk = (state: string): void => {
    if (seen.has(state)) return;
    seen.add(state);
    for (const next of table[state] ?? []) walk(next);
  };
  walk(from);
  return seen;
}

for (const [title, table, first] of tables) {
  t.test(`every state of the ${title.toLowerCase()} can be reached, and leads to an end`, async (t) => {
    t.same([...reachable(table, first)].sort(), Object.keys(table).sort());
    for (const state of Object.keys(table))
      t.ok(
        [...reachable(table, state)].some((one) => table[one]?.length === 0),
        `${state} ends`,
      );
  });
}

t.test("before the switchover every step of the source can turn back", async (t) => {
  for (const state of ["planned", "negotiating", "staging", "copying", "switching", "granting"] as const)
    t.ok(
      SOURCE_EDGES[state].some((next) => next === "keeping"),
      state,
    );
});

t.test("the operator sees each state of the source as a status", async (t) => {
  t.equal(sourceStatus("staging", false), "preparing");
  t.equal(sourceStatus("inDoubt", false), "inDoubt");
  t.equal(sourceStatus("released", false), "moved");
  t.equal(sourceStatus("kept", false), "failed");
  t.equal(sourceStatus("kept", true), "cancelled");
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
