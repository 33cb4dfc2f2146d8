/**
 * Runs the compiled tests: unit tests on all cores, then those with real QEMUs one after the other, so that they do not
 * take the cores from each other. Each file is a program of its own that prints TAP; what fails is shown whole.
 */
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join, relative } from "node:path";
import { packageRoot } from "../../shared/runtime/package-root.ts";

interface FileResult {
  readonly file: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly seconds: number;
  readonly output: string;
}

/** A file that hangs ends the run's time for all: tap's own time-outs come first. */
const FILE_TIMEOUT_MS = 10 * 60_000;

function runFile(path: string, root: string): Promise<FileResult> {
  const startMs = performance.now();
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ["--enable-source-maps", path], {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    const take = (text: Buffer): void => {
      output += text.toString();
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    // tap tears down on SIGALRM, and so does the rig
    const timer = setTimeout(() => child.kill("SIGALRM"), FILE_TIMEOUT_MS);
    child.on("close", (code) => {
      clearTimeout(timer);
      const counts = count(output);
      const failed = counts.failed === 0 && code !== 0 ? 1 : counts.failed;
      const seconds = (performance.now() - startMs) / 1000;
      resolve({ ...counts, failed, file: relative(`${root}/dist`, path), seconds, output });
    });
  });
}

/** Subtests of the first level, which TAP writes without indentation. */
function count(output: string): { passed: number; failed: number; skipped: number } {
  let [passed, failed, skipped] = [0, 0, 0];
  for (const line of output.split("\n"))
    if (/^(not )?ok \d+.*# (SKIP|TODO)/i.test(line)) skipped++;
    else if (/^ok \d+/.test(line)) passed++;
    else if (/^not ok \d+/.test(line)) failed++;
  return { passed, failed, skipped };
}

function report(result: FileResult): void {
  const counts = `${result.passed} passed${result.failed > 0 ? `, ${result.failed} FAILED` : ""}${result.skipped > 0 ? `, ${result.skipped} skipped` : ""}`;
  console.log(`${result.failed > 0 ? "✗" : "✓"} ${result.file}  ${counts}  ${result.seconds.toFixed(1)} s`);
  if (result.failed > 0) console.log(result.output.replace(/^/gm, "    "));
}

async function runAll(files: readonly string[], jobs: number, root: string): Promise<FileResult[]> {
  const left = [...files];
  const results: FileResult[] = [];
  const worker = async (): Promise<void> => {
    for (let file = left.shift(); file !== undefined; file = left.shift()) {
      const result = await runFile(file, root);
      report(result);
      results.push(result);
    }
  };
  await Promise.all(Array.from({ length: jobs }, worker));
  return results;
}

function testFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".test.js"))
    .map((name) => join(folder, name))
    .sort();
}

const root = packageRoot();
const patterns = process.argv.slice(2);
const chosen = testFiles(join(root, "dist/test")).filter(
  (file) => patterns.length === 0 || patterns.some((one) => file.includes(one)),
);
const isSerial = (file: string): boolean => file.includes("/dist/test/e2e/");
const results = [
  ...(await runAll(
    chosen.filter((file) => !isSerial(file)),
    Math.min(2, availableParallelism()),
    root,
  )),
  ...(await runAll(chosen.filter(isSerial), 1, root)),
];
const sum = (pick: (result: FileResult) => number): number => results.reduce((total, one) => total + pick(one), 0);
const [passed, failed, skipped] = [sum((one) => one.passed), sum((one) => one.failed), sum((one) => one.skipped)];
if (failed > 0)
  console.log(
    `\nFailed: ${results
      .filter((one) => one.failed > 0)
      .map((one) => one.file)
      .join(", ")}`,
  );
if (results.length === 0) console.log(`No test file matches ${patterns.join(" ")}`);
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
