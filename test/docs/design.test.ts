/**
 * Tests that the design pages agree with the code: each constant of their tables has the value that the code gives it.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { packageRoot } from "../../shared/runtime/package-root.ts";

const root = packageRoot();
const HEADINGS = ["constant", "where", "value", "unit", "why", "evidence"];

interface Row {
  readonly page: string;
  readonly constant: string;
  readonly where: string;
  readonly value: string;
}

/** Reads the cells of a table's line. A bar inside of backticks belongs to its cell. */
function cellsOf(line: string): string[] {
  const cells = line.match(/(?:`[^`]*`|[^|`])+/g) ?? [];
  return cells.map((cell) => cell.trim()).filter((cell) => cell !== "");
}

const plain = (cell: string): string => cell.replace(/^`(.*)`$/, "$1");

function rowsOf(page: string): Row[] {
  const text = readFileSync(join(root, "docs/design", page), "utf8");
  const [, after] = text.split(/^## Constants$/m);
  const lines = (after ?? "").split("\n").filter((line) => line.startsWith("|"));
  const [head, , ...rows] = lines.map(cellsOf);
  if (head?.join() !== HEADINGS.join()) return [];
  return rows.map(([constant = "", where = "", value = ""]) => ({
    page,
    constant: plain(constant),
    where: plain(where),
    value: plain(value),
  }));
}

const pages = readdirSync(join(root, "docs/design")).filter((name) => name.endsWith(".md"));
const rows = pages.flatMap(rowsOf);

t.test("each design page has a table of constants", async (t) => {
  const without = pages.filter((page) => !rows.some((row) => row.page === page));
  t.same(without, []);
});

t.test("a constant of a design page has the value that the code gives it", async (t) => {
  const wrong = rows.flatMap(({ page, constant, where, value }) => {
    const code = readFileSync(join(root, where), "utf8");
    const found = new RegExp(`^(?:export )?const ${constant}(?:: [^=]+)? = ([^;]+);`, "m").exec(code)?.[1];
    const given = found?.replace(/\s+/g, " ");
    return given === value ? [] : [`${page}: ${constant} is ${given ?? "not there"}, not ${value}`];
  });
  t.same(wrong, []);
  t.ok(rows.length > 200, `${rows.length} constants were read`);
});

t.test("a constant stands in one table", async (t) => {
  const seen = new Map<string, string>();
  const twice = rows.flatMap(({ page, constant, where }) => {
    const key = `${constant} of ${where}`;
    const first = seen.get(key);
    seen.set(key, page);
    return first === undefined ? [] : [`${key}: ${first}, ${page}`];
  });
  t.same(twice, []);
});
