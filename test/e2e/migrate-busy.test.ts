/**
 * Moves the guest of the demo there and back, with the same agents all the time. On the way back its memory is
 * compared.
 */
import t, { type Test } from "tap";
import type { MigrationResult } from "../../shared/protocol/report.ts";
import type { QmpEvent } from "../../shared/qemu/qmp/qmp-types.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import type { HostAgents } from "../support/agents.ts";
import { migrate, requireMoved } from "../support/ferry-json.ts";
import { openPair } from "../support/pair.ts";
import type { Rig, RigHost } from "../support/rig.ts";
import { longestPause } from "../support/serial.ts";

t.setTimeout(240_000);
const MEMORY_MIB = 512;
const EVENT = { timeoutMs: 120_000 };
/**
 * The longest downtime that this test takes, milliseconds. The target is 300 ms, which a host with other work may miss;
 * the benchmarks tell by how much.
 */
const DOWNTIME_MAX_MS = 5000;
/**
 * How much the downtime that the agents report may differ from what the monitors' events say, milliseconds, beside the
 * error that the agents state.
 */
const AGREES_MS = 20;

t.test("a busy guest moves there and back while it runs, with all of its memory", async (t) => {
  const workload = { regionMiB: 128, rate: 200e6 };
  const { rig, a, b } = await openPair(t, { guest: { name: "busy", memoryMiB: MEMORY_MIB, workload } });

  const there = await moved(t, rig, a, b, ["--strategy", "precopy"]);
  t.ok(there.pages.delta > 0 && there.deltaRatio > 2, `deltas were sent, ${there.deltaRatio} times smaller`);
  t.ok(there.pages.coalesced + there.pages.skipped >= 0);
  t.equal(there.verified, false);
  await assertOneGuest(t, rig, { name: "busy", at: rig.b });

  const back = await moved(t, rig, b, a, ["--verify"]);
  t.equal(back.verified, true);
  t.ok(back.pagesCompared >= (MEMORY_MIB << 20) / 4096, `all pages were compared: ${back.pagesCompared}`);
  t.ok(back.downtime.verifyMs > 0, `the comparison took ${back.downtime.verifyMs} ms of the downtime`);
  await assertOneGuest(t, rig, { name: "busy", at: rig.a });

  for (const agent of [a.source, a.destination, b.source, b.destination])
    t.equal(agent.running, true, `${agent.name} ran all the time`);
  const pause = longestPause(rig.serial(rig.a, "busy"), rig.serial(rig.b, "busy"));
  t.ok(pause.seenMs >= there.downtime.totalMs, "the pause is seen from outside, by the guest's heartbeats");
});

/**
 * Migrates the guest, and compares the reported downtime with the events of both QEMUs, as their second monitors tell
 * them.
 */
async function moved(
  t: Test,
  rig: Rig,
  from: HostAgents,
  to: HostAgents,
  options: readonly string[],
): Promise<MigrationResult> {
  const stopped = eventAt(rig, from.host, "STOP");
  const resumed = eventAt(rig, to.host, "RESUME");
  const run = migrate(rig, from, to, "busy", options);
  for (const event of [stopped, resumed]) event.catch(() => undefined);
  const { result } = requireMoved(await run);
  const [stop, resume] = [await stopped, await resumed];
  const observedMs = (resume.timestampUs - stop.timestampUs) / 1e3;
  const reportedMs = result.downtime.totalMs;
  t.ok(
    Math.abs(observedMs - reportedMs) <= AGREES_MS + result.downtime.clockErrorMs,
    `${from.host.name} to ${to.host.name}: downtime reported ${reportedMs.toFixed(1)} ms, observed ${observedMs.toFixed(1)} ms`,
  );
  t.ok(
    reportedMs - result.downtime.verifyMs < DOWNTIME_MAX_MS,
    `without the comparison the guest stood still for ${(reportedMs - result.downtime.verifyMs).toFixed(1)} ms`,
  );
  return result;
}

/**
 * Waits for an event of the guest's QEMU on a host, at its second monitor. observe() waits for a QEMU that is not there
 * yet.
 */
async function eventAt(rig: Rig, host: RigHost, name: string): Promise<QmpEvent> {
  const monitor = await rig.observe(host, "busy");
  try {
    return await monitor.waitFor(name, undefined, EVENT);
  } finally {
    monitor.close();
  }
}
