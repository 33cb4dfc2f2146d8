/** Tests the simulated monitor, which the warm-ups of both agents ask. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { MigrationFault } from "../../../shared/fault.ts";
import { askSimulatedMonitor } from "../../../shared/warmup/simulated-monitor.ts";

function folder(t: { teardown(done: () => void): unknown }): string {
  const path = mkdtempSync(join(tmpdir(), "ferry-monitor-"));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

t.test("every question is answered, and nothing is left behind", async (t) => {
  const at = folder(t);
  await askSimulatedMonitor(join(at, "monitor"), new AbortController().signal);
  t.same(readdirSync(at), []);
});

t.test("a caller that has something else to do ends the questions, and nothing is left behind", async (t) => {
  const at = folder(t);
  const cancelled = new MigrationFault("cancelled", "The warm-up ended because a migration begins");
  await t.rejects(askSimulatedMonitor(join(at, "monitor"), AbortSignal.abort(cancelled)), cancelled);
  t.same(readdirSync(at), []);
});

t.test("where the monitor cannot listen, the fault says so", async (t) => {
  const path = join(folder(t), "no", "such", "folder");
  await t.rejects(askSimulatedMonitor(path, new AbortController().signal), { message: /listen/u });
});
