/**
 * Moves an idle guest, and checks all that the result says: the downtime and its parts, bytes, pages, and what the
 * agents have used.
 */
import t, { type Test } from "tap";
import type { MigrationResult, MigrationView } from "../../shared/protocol/report.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { ferryJson, migrate, requireMoved } from "../support/ferry-json.ts";
import { IDLE, openPair } from "../support/pair.ts";

t.setTimeout(180_000);
const MEMORY_MIB = 256;
const GUEST_PAGES = (MEMORY_MIB << 20) / 4096;

t.test("an idle guest moves to another host and beats on there", async (t) => {
  const { rig, a, b } = await openPair(t, { guest: { name: "idle", memoryMiB: MEMORY_MIB, workload: IDLE } });
  const planned = await ferryJson<{ accepted: boolean }>(rig, a, [
    "plan",
    "idle",
    "--no-observe",
    "--to",
    b.destinationAddress,
  ]);
  t.equal(planned.code, 0);
  t.equal(planned.answer.accepted, true, "ferry plan said before that the guest can be moved");
  await assertOneGuest(t, rig, { name: "idle", at: rig.a });

  const view = requireMoved(await migrate(rig, a, b, "idle"));
  t.match(view, { guest: "idle", destination: b.destinationAddress, status: "moved" });
  t.equal(view.error, undefined);
  assertNegotiated(t, view);
  assertResult(t, view.result);
  await assertOneGuest(t, rig, { name: "idle", at: rig.b });

  const listed = await ferryJson<MigrationView>(rig, a, ["list"]);
  t.equal(listed.code, 0);
  t.match(JSON.stringify(listed.answer), new RegExp(view.id), "the source agent remembers the migration");
  const guests = await ferryJson(rig, b, ["guests"]);
  t.match(
    JSON.stringify(guests.answer),
    /"name":"idle","state":"running"/,
    "the agent of the other host sees the guest",
  );
});

function assertNegotiated(t: Test, { negotiated }: MigrationView): void {
  t.match(negotiated, {
    "protocol version": "2",
    "destination QEMU": /^\d+\.\d+\.\d+$/,
    "destination free memory": /^\d+ MiB$/,
    codecs: /xbzrle/,
    "downtime target": "300 ms",
    deadline: "none",
    verify: "no",
  });
}

function assertResult(t: Test, result: MigrationResult): void {
  const { downtime, bytes, pages } = result;
  t.equal(result.completed, true);
  t.ok(result.totalSeconds > 0.1 && result.totalSeconds < 60, `took ${result.totalSeconds} s`);
  assertDowntime(t, downtime);
  // the target is 300 ms, which a host with other work may miss; the benchmarks tell by how much
  t.ok(downtime.totalMs < 5000, `an idle guest stands still for less than 5 s: ${downtime.totalMs} ms`);
  const kinds = [bytes.zero, bytes.full, bytes.delta, bytes.device, bytes.other];
  for (const one of kinds) t.ok(Number.isInteger(one) && one >= 0, `${one} bytes`);
  const sum = kinds.reduce((total, one) => total + one, 0);
  t.ok(Math.abs(sum - bytes.total) <= kinds.length, `the kinds add up to the total: ${sum} of ${bytes.total}`);
  t.ok(bytes.full > 1 << 20 && bytes.device > 1000, `${bytes.full} bytes of pages, ${bytes.device} of devices`);
  t.ok(bytes.total < MEMORY_MIB << 20, "less than the guest's memory crossed the link");
  t.ok(pages.captured >= GUEST_PAGES, `every page was captured: ${pages.captured} of ${GUEST_PAGES}`);
  t.ok(pages.zero > 0 && pages.full > 0, `${pages.zero} zero and ${pages.full} full pages`);
  const accounted = pages.zero + pages.full + pages.delta + pages.coalesced + pages.skipped;
  t.equal(accounted, pages.captured, "every captured page was sent, coalesced or skipped");
  t.ok(result.bitmapSyncs >= 1, `${result.bitmapSyncs} passes`);
  t.ok(result.zstdRatio === 0 || result.zstdRatio > 1, `zstd made it ${result.zstdRatio} times smaller`);
  t.ok(result.deltaRatio === 0 || result.deltaRatio > 1, `deltas made it ${result.deltaRatio} times smaller`);
  for (const cpu of [result.sourceAgentCpuSeconds, result.destinationAgentCpuSeconds])
    t.ok(cpu > 0 && cpu < 4 * result.totalSeconds + 1, `${cpu} CPU seconds`);
  for (const peak of [result.sourceAgentPeakMemoryBytes, result.destinationAgentPeakMemoryBytes])
    t.ok(peak > 20 << 20 && peak < 1 << 30, `${peak} bytes of memory`);
  t.match(result.switchReason, /fits/, "the result says why the agent switched over");
  t.equal(result.verified, false);
  t.equal(result.pagesCompared, 0);
  t.ok(Array.isArray(result.degradations));
}

function assertDowntime(t: Test, downtime: MigrationResult["downtime"]): void {
  const parts = [downtime.lastPagesMs, downtime.deviceStateMs, downtime.loadMs, downtime.verifyMs, downtime.commitMs];
  const error = downtime.clockErrorMs;
  for (const part of parts) t.ok(part >= -error, `no part is negative: ${part} ms`);
  const sum = parts.reduce((total, part) => total + part, 0);
  t.ok(Math.abs(sum - downtime.totalMs) <= error + 0.01, `the parts add up: ${sum} of ${downtime.totalMs} ms`);
  t.ok(error > 0 && error < 20, `the clocks are known to ${error} ms`);
  t.equal(downtime.verifyMs, 0);
}
