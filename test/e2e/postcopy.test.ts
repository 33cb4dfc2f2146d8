/**
 * Moves real guests by post-copy and hybrid: the guest runs at the destination before all of its pages have come, and
 * checks its memory there.
 */
import t, { type Test } from "tap";
import type { MigrationResult } from "../../shared/protocol/report.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import type { HostAgents } from "../support/agents.ts";
import { migrate, requireMoved, startMigrate } from "../support/ferry-json.ts";
import { noPostcopyFrom } from "../support/other-qemu.ts";
import { IDLE, openPair } from "../support/pair.ts";
import type { Rig } from "../support/rig.ts";
import { longestPause } from "../support/serial.ts";

t.setTimeout(240_000);
const BEATS = 20;
const WORK = { timeoutMs: 60_000 };
/** The guests move both ways, so the QEMU of neither host may be one for which post-copy is refused. */
const SKIP = { skip: noPostcopyFrom("a") || noPostcopyFrom("b") };

t.test("a busy guest moves by post-copy, there and back", SKIP, async (t) => {
  const workload = { regionMiB: 64, rate: 100e6 };
  const { rig, a, b } = await openPair(t, { guest: { name: "busy", memoryMiB: 256, workload } });
  const there = await moved(t, rig, a, b, "postcopy");
  t.ok(there.postcopy !== undefined, "the migration ended in post-copy");
  const beat = await rig.serial(rig.b, "busy").waitForBeats(BEATS, WORK);
  t.equal(beat.errors, 0, "the guest found its memory right");
  const pause = longestPause(rig.serial(rig.a, "busy"), rig.serial(rig.b, "busy"));
  t.comment(JSON.stringify({ pause, ...figures(there) }));
  await assertOneGuest(t, rig, { name: "busy", at: rig.b });
  const back = await moved(t, rig, b, a, "hybrid");
  t.comment(JSON.stringify(figures(back)));
  const again = await rig.serial(rig.a, "busy").waitForBeats(BEATS, WORK);
  t.equal(again.errors, 0);
  await assertOneGuest(t, rig, { name: "busy", at: rig.a });
});

t.test(
  "a guest that precopy cannot follow goes into post-copy at the deadline, and with hybrid by itself",
  SKIP,
  async (t) => {
    const workload = { regionMiB: 64, rate: 200e6 };
    const { rig, a, b } = await openPair(t, {
      guest: { name: "wild", memoryMiB: 256, workload },
      rig: { bitsPerSecond: 100e6 },
    });
    const late = ["--no-delta", "--deadline", "5s", "--on-deadline", "postcopy"];
    const there = await moved(t, rig, a, b, "precopy", "wild", late);
    t.match(there.switchReason, /deadline of 5000 ms.*post-copy, as agreed/);
    t.ok(there.postcopy !== undefined && there.postcopy.requestedPages > 0);
    t.comment(JSON.stringify(figures(there)));
    await assertOneGuest(t, rig, { name: "wild", at: rig.b });
    const back = await moved(t, rig, b, a, "hybrid", "wild", ["--no-delta"]);
    t.match(back.switchReason, /^hybrid: /);
    t.ok(back.postcopy !== undefined);
    t.comment(JSON.stringify(figures(back)));
    await assertOneGuest(t, rig, { name: "wild", at: rig.a });
  },
);

t.test(
  "a source serves pages and has a result although the destination takes long to start the guest",
  SKIP,
  async (t) => {
    const { rig, a, b } = await openPair(t, {
      guest: { name: "late", memoryMiB: 256, workload: IDLE },
      b: { destination: ["--faults=hold-at=starting"] },
    });
    const run = await startMigrate(rig, a, b, "late", ["--strategy", "postcopy"]);
    await b.destination.waitForOutput(/"held":"starting"/, WORK);
    await a.source.waitForOutput(/"state":"serving"/, WORK);
    b.destination.signal("SIGUSR2");
    const { result } = requireMoved(await run.end());
    t.ok(result.postcopy !== undefined);
    t.ok(result.downtime.totalMs > 2000, `the guest stood still for ${result.downtime.totalMs} ms`);
    await assertOneGuest(t, rig, { name: "late", at: rig.b });
  },
);

async function moved(
  t: Test,
  rig: Rig,
  from: HostAgents,
  to: HostAgents,
  strategy: string,
  guest = "busy",
  options: readonly string[] = [],
): Promise<MigrationResult> {
  const run = await migrate(rig, from, to, guest, ["--strategy", strategy, ...options]);
  if (run.code !== 0) t.comment(run.output.slice(-600));
  return requireMoved(run).result;
}

const figures = ({ totalSeconds, downtime, postcopy, bytes, pages, switchReason }: MigrationResult): object => ({
  totalSeconds,
  downtime,
  postcopy,
  bytes: bytes.total,
  pages,
  switchReason,
});
