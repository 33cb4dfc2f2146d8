/** Prints what bench:path has measured: medians, and the ratios of this checkout to the one beside it. */
import { median } from "../measure.ts";
import { type Migrated, sum } from "./life.ts";

/** The migrations of one checkout: the first of each life, and the others. */
export interface Checkout {
  readonly root: string;
  readonly first: readonly Migrated[];
  readonly later: readonly Migrated[];
}

const PROCESSES = ["feeder", "source", "destination", "player"] as const;

/**
 * @returns a table in Markdown; its CPU columns are seconds for each GB of guest pages, `user + system`, and the page
 *   faults of a migration in brackets
 */
export function report(checkouts: readonly Checkout[]): string {
  const rows = [
    ["checkout, migration", ...PROCESSES, "both agents", "GB/s", "wire", "given back"],
    ["---", ...PROCESSES.map(() => "---"), "---", "---", "---", "---"],
  ];
  for (const { root, first, later } of checkouts) {
    rows.push(row(`${root}, first`, first));
    rows.push(row(`${root}, later`, later));
  }
  const table = rows.map((cells) => `| ${cells.join(" | ")} |`).join("\n");
  const [own, other] = checkouts;
  if (own === undefined || other === undefined) return table;
  const ratio = (name: "first" | "later"): string => (bothOf(own[name]) / bothOf(other[name])).toFixed(2);
  return `${table}\n\nBoth agents, this checkout to the other: ${ratio("first")} first, ${ratio("later")} later`;
}

function row(name: string, all: readonly Migrated[]): string[] {
  const of = (value: (one: Migrated) => number): number => median(all.map(value));
  const used = PROCESSES.map((key) => {
    const user = of((one) => one[key].user / gigabytes(one));
    const system = of((one) => one[key].system / gigabytes(one));
    return `${user.toFixed(2)} + ${system.toFixed(2)} (${of((one) => one[key].faults)})`;
  });
  const speed = of((one) => gigabytes(one) / one.seconds);
  const wire = of((one) => one.wireBytes / one.guestBytes);
  const after = of((one) => one.afterSeconds / gigabytes(one));
  return [name, ...used, bothOf(all).toFixed(2), speed.toFixed(2), wire.toFixed(2), after.toFixed(2)];
}

const gigabytes = ({ guestBytes }: Migrated): number => guestBytes / 1e9;

const bothOf = (all: readonly Migrated[]): number =>
  median(all.map((one) => (sum(one.source) + sum(one.destination)) / gigabytes(one)));
