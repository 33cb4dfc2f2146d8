/** Tests the warm-ups of both agents: they go through everything that pages go through, and leave nothing behind. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import * as destination from "../../../agent-destination/warmup/warm-up.ts";
import * as source from "../../../agent-source/warmup/warm-up.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { loadDestinationConfig, loadSourceConfig } from "../../../shared/runtime/config/config.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../../shared/runtime/log/log.ts";
import { WarmUpRunner } from "../../../shared/runtime/v8/warm-up-runner.ts";
import { LIMITS } from "../../support/link.ts";
import { turn } from "../../support/sending.ts";

const log = createLogger("rehearsal", "silent");
const NEVER = new AbortController().signal;

function parts(t: { teardown(done: () => void): unknown }, more: readonly string[] = []) {
  const folder = mkdtempSync(join(tmpdir(), "ferry-rehearsal-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const flags = ["guests", "runtime", "state"].map((name) => `--${name}-directory=${folder}`);
  const common = { clock: systemClock, log, limits: LIMITS, createKernels: loadKernels };
  return {
    folder,
    source: { ...common, config: loadSourceConfig([...flags, ...more], {}) },
    destination: { ...common, config: loadDestinationConfig(flags, {}) },
  };
}

t.test("a source agent moves a simulated guest, and leaves nothing behind", async (t) => {
  const { folder, source: given } = parts(t);
  await source.warmUp(given, NEVER);
  t.ok(source.isWarm());
  t.same(readdirSync(folder), []);
});

t.test("a source agent moves a simulated guest without compression too", async (t) => {
  const { source: given } = parts(t, ["--transfer-zstd-workers=0"]);
  await source.warmUp(given, NEVER);
});

t.test("a destination agent receives a simulated guest, and leaves nothing behind", async (t) => {
  const { folder, destination: given } = parts(t);
  await destination.warmUp(given, NEVER);
  t.ok(destination.isWarm());
  t.same(readdirSync(folder), []);
});

for (const role of ["source", "destination"] as const)
  t.test(`a migration ends the warm-up of the ${role}, wherever the warm-up is`, async (t) => {
    const { folder, source: forSource, destination: forDestination } = parts(t);
    for (const turns of [0, 1, 30, 100, 300, 1000]) {
      const runner = new WarmUpRunner();
      runner.begin(log, (signal) =>
        role === "source" ? source.warmUp(forSource, signal) : destination.warmUp(forDestination, signal),
      );
      for (let taken = 0; taken < turns; taken++) await turn();
      await runner.end();
      t.same(readdirSync(folder), [], `after ${turns} turns of the event loop`);
    }
  });

t.test("an agent that cannot warm up logs it, and goes on", async () => {
  const runner = new WarmUpRunner();
  runner.begin(log, () => Promise.reject(new Error("no room")));
  await runner.end();
});
