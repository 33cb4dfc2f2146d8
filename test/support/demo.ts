/**
 * The demo. A guest that writes 200 MB/s into 128 MiB of its memory moves over a link of 1 Gbit/s while it works, and
 * then back with its memory compared page by page. Afterwards QEMU itself moves the same guest over the same link, for
 * comparison. With `--json` the last line is one JSON object on standard output, and everything else goes to standard
 * error.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { MigrationView } from "../../shared/protocol/report.ts";
import { startAgents } from "./agents.ts";
import { type FerryRun, measuredMigration } from "./ferry-run.ts";
import { guestDefinition } from "./guest.ts";
import { type Baseline, migrateWithQemu } from "./qemu-baseline.ts";
import { Rig } from "./rig.ts";

const BOOT = { timeoutMs: 120_000 };
const PLAIN_GIVEN_UP_AFTER_MS = 15_000;
const XBZRLE_GIVEN_UP_AFTER_MS = 60_000;
/** How many heartbeats are waited for between two steps, so that the guest is seen to work before it is moved again. */
const BEATS = 10;

const json = process.argv.includes("--json");
const say = (text: string): void => {
  (json ? process.stderr : process.stdout).write(`${text}\n`);
};

/** Runs `ferry` so that the reader of the demo sees its progress bar. @returns the exit code */
async function showFerry(command: readonly string[], environment: Readonly<Record<string, string>>): Promise<number> {
  const [program, ...args] = command;
  if (program === undefined) throw new RangeError("a command needs a program");
  const out = json ? 2 : 1;
  const child = spawn(program, args, { stdio: ["ignore", out, 2], env: { ...process.env, ...environment } });
  const [code] = await once(child, "exit");
  return Number(code);
}

interface Moved {
  readonly there: FerryRun;
  readonly back: FerryRun;
  readonly errors: number;
}

async function moveWithFerry(rig: Rig): Promise<Moved> {
  const [a, b] = [
    await startAgents(rig, rig.a, { rehearsed: true }),
    await startAgents(rig, rig.b, { rehearsed: true }),
  ];
  const definition = guestDefinition({ name: "demo" });
  rig.writeDefinition(definition);
  say("Booting a guest with 512 MiB that writes 200 MB/s into 128 MiB, four words a page …");
  const guest = await rig.startGuest(rig.a, definition);
  await guest.serial.waitForBeats(BEATS, BOOT);
  say(`\nferry migrate demo --to ${b.destinationAddress}`);
  const there = await measuredMigration(rig, { from: a, to: b, guest: "demo", show: showFerry });
  requireMoved(there.view, "The migration");
  await rig.serial(rig.b, "demo").waitForBeats(BEATS, BOOT);
  say(
    `\nferry migrate demo --to ${a.destinationAddress} --verify   (back, comparing all memory: the guest is stopped meanwhile)`,
  );
  const back = await measuredMigration(rig, { from: b, to: a, guest: "demo", show: showFerry, options: ["--verify"] });
  requireMoved(back.view, "The way back");
  const beat = await rig.serial(rig.a, "demo").waitForBeats(BEATS, BOOT);
  await Promise.all([a, b].flatMap(({ source, destination }) => [source.stop(), destination.stop()]));
  const monitor = await rig.observe(rig.a, "demo");
  await monitor.execute("quit");
  return { there, back, errors: beat.errors };
}

function requireMoved(view: MigrationView, what: string): void {
  if (view.status !== "moved")
    throw new Error(`${what} ended as ${view.status}: ${view.error?.message ?? "no reason"}`);
}

async function moveWithQemu(rig: Rig): Promise<{ plain: Baseline; xbzrle: Baseline }> {
  const definition = guestDefinition({ name: "peer" });
  say("\nThe same guest and link with QEMU alone: plain precopy, given up after 15 s …");
  const guest = await rig.startGuest(rig.a, definition);
  await guest.serial.waitForBeats(BEATS, BOOT);
  const plain = await migrateWithQemu({
    rig,
    guest,
    definition,
    method: "plain",
    giveUpAfterMs: PLAIN_GIVEN_UP_AFTER_MS,
  });
  await plain.guest.serial.waitForBeats(BEATS, BOOT);
  say("… and its xbzrle with a cache of 256 MiB …");
  const xbzrle = await migrateWithQemu({
    rig,
    guest: plain.guest,
    definition,
    method: "xbzrle",
    giveUpAfterMs: XBZRLE_GIVEN_UP_AFTER_MS,
  });
  return { plain, xbzrle };
}

const baselineJson = ({ completed, totalSeconds, downtimeMs, bytesOnWire, syncs }: Baseline): object => ({
  completed,
  totalSeconds,
  downtimeMs: downtimeMs ?? null,
  bytesOnWire,
  bitmapSyncs: syncs,
});

function summary(rig: Rig, moved: Moved, plain: Baseline, xbzrle: Baseline): string {
  const row = (
    name: string,
    completed: boolean,
    seconds: number,
    downtimeMs: number | undefined,
    bytes: number,
  ): string =>
    [
      name.padEnd(22),
      (completed ? `${seconds.toFixed(2)} s` : `> ${seconds.toFixed(0)} s, given up`).padStart(18),
      (downtimeMs === undefined ? "–" : `${downtimeMs.toFixed(0)} ms`).padStart(10),
      `${(bytes / 1e6).toFixed(0)} MB`.padStart(10),
    ].join(" ");
  const { there, back } = moved;
  const link = rig.network.kind === "namespaces" ? "1 Gbit/s" : "the loopback, unshaped: no root to make namespaces";
  return [
    "",
    `512 MiB guest, 128 MiB dirtied at 200 MB/s, ${link}`,
    `${"".padEnd(22)} ${"total".padStart(18)} ${"downtime".padStart(10)} ${"on wire".padStart(10)}`,
    row("QEMU precopy", plain.completed, plain.totalSeconds, plain.downtimeMs, plain.bytesOnWire),
    row("QEMU xbzrle", xbzrle.completed, xbzrle.totalSeconds, xbzrle.downtimeMs, xbzrle.bytesOnWire),
    row("Ferry", true, there.totalSeconds, there.downtimeMs, there.bytesOnWire),
    "",
    `Verified on the way back: ${back.view.result?.pagesCompared ?? 0} pages alike; the guest's own check found ${moved.errors} errors`,
    `Total from the command to RESUME, downtime from STOP to RESUME (QEMU's events), bytes from the interface's counters`,
  ].join("\n");
}

const rig = await Rig.open().catch((thrown: unknown) => {
  process.stderr.write(
    `The demo cannot make its two hosts: ${thrown instanceof Error ? thrown.message : String(thrown)}\n`,
  );
  process.exit(1);
});
try {
  const moved = await moveWithFerry(rig);
  const { plain, xbzrle } = await moveWithQemu(rig);
  const { there, back } = moved;
  say(summary(rig, moved, plain, xbzrle));
  const verified = back.view.result?.verified === true && moved.errors === 0;
  if (json) {
    const { view, ...measured } = there;
    const ferry = { completed: view.status === "moved", ...measured, result: view.result };
    const line = {
      verified,
      link: rig.network.kind,
      ferry,
      qemuPlain: baselineJson(plain),
      qemuXbzrle: baselineJson(xbzrle),
    };
    process.stdout.write(`${JSON.stringify(line)}\n`);
  }
  process.exitCode = verified ? 0 : 1;
} catch (thrown) {
  process.stderr.write(`\nThe demo failed: ${thrown instanceof Error ? thrown.message : String(thrown)}\n`);
  process.exitCode = 1;
} finally {
  await rig.close();
}
await rig.assertNothingLeft();
