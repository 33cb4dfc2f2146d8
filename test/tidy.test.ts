/**
 * Checks what no other tool looks at: the width of comments, the length of files and functions, whether the
 * documents and headings that comments and documents refer to are there, and whether a newcomer is told of each npm
 * script.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import t from "tap";
import ts from "typescript";
import { packageRoot } from "../shared/runtime/package-root.ts";

// every file is parsed, which takes a while on a busy machine
t.setTimeout(240_000);

const root = packageRoot();
const COLUMNS = 120;
const FUNCTION_LINES = 60;
const FILE_LINES = 350;

const files = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
  cwd: root,
  encoding: "utf8",
})
  .split("\n")
  .filter((file) => file !== "" && existsSync(join(root, file)));
const textOf = (file: string): string => readFileSync(join(root, file), "utf8");
const ending = (pattern: RegExp): readonly string[] => files.filter((file) => pattern.test(file));

const COMMENT = /^\s*(?:\/\/|\/?\*)/;

t.test("a comment has at most 120 columns", async (t) => {
  const wide = ending(/\.(ts|c)$/).flatMap((file) =>
    textOf(file)
      .split("\n")
      .flatMap((line, index) => (COMMENT.test(line) && [...line].length > COLUMNS ? [`${file}:${index + 1}`] : [])),
  );
  t.same(wide, []);
});

t.test("a file of code has at most 350 lines", async (t) => {
  const linesOf = (file: string): number => textOf(file).split("\n").length - 1;
  t.same(
    ending(/\.(ts|c|sh)$/).filter((file) => linesOf(file) > FILE_LINES),
    [],
  );
});

/** True for `t.test(…)`. */
const isTest = (node: ts.Node): boolean =>
  ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression) && node.expression.name.text === "test";

/**
 * Finds the functions that are too long, at whatever depth. The tests that a function holds are functions of their own,
 * so their lines do not count as lines of that function.
 * @returns each as "FILE:LINE has N lines"
 */
function longFunctions(file: string, text = textOf(file)): string[] {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest);
  const line = (at: number): number => source.getLineAndCharacterOfPosition(at).line + 1;
  const linesOf = (node: ts.Node): number => line(node.end) - line(node.getStart(source)) + 1;
  const found: string[] = [];
  /** @returns the lines of the tests inside the node */
  const visit = (node: ts.Node): number => {
    let lines = 0;
    ts.forEachChild(node, (child) => {
      const inside = visit(child);
      lines += isTest(child) ? linesOf(child) : inside;
    });
    const own = ts.isFunctionLike(node) ? linesOf(node) - lines : 0;
    if (own > FUNCTION_LINES) found.push(`${file}:${line(node.getStart(source))} has ${own} lines`);
    return lines;
  };
  visit(source);
  return found;
}

t.test("a function has at most 60 lines", async (t) => {
  const body = "  x();\n".repeat(FUNCTION_LINES - 2);
  t.same(longFunctions("a.ts", `const short = () => {\n${body}};\n`), []);
  t.same(longFunctions("a.ts", `\nclass A {\n  long() {\n  x();\n${body}}\n}\n`), ["a.ts:3 has 61 lines"]);
  const group = `t.test("a", () => {\n  t.test("b", () => {\n${body}  });\n${body}});\n`;
  t.same(longFunctions("a.ts", group), []);
  t.same(longFunctions("a.ts", group.replace("x();", "x(\n);")), ["a.ts:2 has 61 lines"]);
  t.same(
    ending(/(?<!\.as)\.ts$/).flatMap((file) => longFunctions(file)),
    [],
  );
});

/** Matches the name of a document in any text: `docs/…`, from the root of the repository. */
const NAMED = /(?<![\w/.])docs\/[\w./-]+/g;
/** Matches a link of a document. Its path is relative to the folder of the document. */
const LINK = /\]\(([^)\s]+)\)/g;

/** Matches documents of QEMU, which comments name as the source of a format. */
const OF_QEMU = /^docs\/(?:interop|devel|xbzrle)/;

/** True if the document exists. A decision may be named by its number alone, as `docs/decisions/` and four digits. */
function isThere(path: string): boolean {
  if (OF_QEMU.test(path)) return true;
  if (existsSync(join(root, path))) return true;
  const [, number] = /^docs\/decisions\/(\d{4})$/.exec(path) ?? [];
  return number !== undefined && files.some((file) => file.startsWith(`docs/decisions/${number}-`));
}

t.test("every document that code or a document names exists", async (t) => {
  const missing = ending(/\.(ts|md|sh|c|proto|service|rules)$/).flatMap((file) =>
    [...textOf(file).matchAll(NAMED)]
      .map(([name]) => name.replace(/[.,/-]+$/, ""))
      .filter((name) => !isThere(name))
      .map((name) => `${file} names ${name}`),
  );
  t.same(missing, []);
});

/** Makes the anchors of a document's headings, as code hosts do. */
const anchorsOf = (text: string): Set<string> =>
  new Set(
    [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, "")
        .trim()
        .replace(/\s/g, "-"),
    ),
  );

t.test("every link of a document leads to a file that exists, and to a heading if it names one", async (t) => {
  const broken = ending(/\.md$/).flatMap((file) =>
    [
      ...textOf(file)
        .replace(/```.*?```/gs, "")
        .matchAll(LINK),
    ].flatMap(([, link = ""]) => {
      if (/^[a-z]+:/.test(link)) return [];
      const [path = "", anchor] = link.split("#");
      const target = path === "" ? file : join(dirname(file), path);
      if (!existsSync(join(root, target))) return [`${file} links to ${link}`];
      if (anchor === undefined || !target.endsWith(".md")) return [];
      return anchorsOf(textOf(target)).has(anchor) ? [] : [`${file} links to ${link}, which has no such heading`];
    }),
  );
  t.same(broken, []);
});

t.test("every anchor that code names is a heading of its page", async (t) => {
  const broken = ending(/\.ts$/).flatMap((file) =>
    [...textOf(file).matchAll(/(docs\/[\w/-]+\.md)#([\w-]+)/g)].flatMap(([whole, page = "", anchor = ""]) =>
      existsSync(join(root, page)) && anchorsOf(textOf(page)).has(anchor) ? [] : [`${file} names ${whole}`],
    ),
  );
  t.same(broken, []);
});

t.test("CONTRIBUTING.md or README.md names each script of package.json", async (t) => {
  const { scripts } = JSON.parse(textOf("package.json"));
  const text = ["CONTRIBUTING.md", "README.md"].map(textOf).join("\n");
  const isNamed = (name: string): boolean => new RegExp(`npm (?:run )?${name}(?![\\w:-])`).test(text);
  t.ok(isNamed("test"));
  t.notOk(isNamed("bench:m"));
  t.same(
    Object.keys(scripts).filter((name) => !isNamed(name)),
    [],
  );
});

t.test("the list of words is sorted, and each word is in use", async (t) => {
  const words = textOf("words.txt").trim().split("\n");
  t.same(words, [...new Set(words)].sort());
  const texts = files.filter((file) => !/^words\.txt$|^package-lock\.json$|\.gz$/.test(file)).map(textOf);
  const text = texts.join("\n").toLowerCase();
  t.same(
    words.filter((word) => !text.includes(word)),
    [],
  );
});
