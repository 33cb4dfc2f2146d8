/** The memory of an agent is bounded by its configuration, whatever the guest does (DESIGN 2, promise 4). */
import { readFileSync } from "node:fs";
import t from "tap";
import { assertOneGuest } from "../support/after-migration.ts";
import { migrate, requireMoved } from "../support/ferry-json.ts";
import { openPair } from "../support/pair.ts";
import type { RigProcess } from "../support/process.ts";

t.setTimeout(480_000);
const ARENA_MIB = 16;
const BASE_CACHE_MIB = 32;
const WINDOW_MIB = 16;
/** The programs themselves, with Node, what it has compiled, what it rehearsed with and the thread that waits (docs/decisions/0032, 0041). */
const SOURCE_MIB = 208;
const DESTINATION_MIB = 144;

t.test("agents stay within their budgets with a guest that is far larger", async (t) => {
  const { rig, a, b } = await openPair(t, {
    guest: { name: "large", memoryMiB: 512, workload: { regionMiB: 64, fillMiB: 256, rate: 100e6 } },
    a: { rehearsed: true, source: [`--memory-arena=${ARENA_MIB}MiB`, `--memory-base-cache=${BASE_CACHE_MIB}MiB`] },
    b: { rehearsed: true, destination: [`--receive-window=${WINDOW_MIB}MiB`] },
  });
  const { result } = requireMoved(await migrate(rig, a, b, "large", ["--deadline", "30s", "--on-deadline", "force"]));
  const [source, destination] = [peakMebibytes(a.source), peakMebibytes(b.destination)];
  const sourceMax = ARENA_MIB + BASE_CACHE_MIB + SOURCE_MIB;
  t.ok(source < sourceMax, `source agent: ${source.toFixed(0)} MiB at most, of ${sourceMax}`);
  const destinationMax = WINDOW_MIB + DESTINATION_MIB;
  t.ok(destination < destinationMax, `destination agent: ${destination.toFixed(0)} MiB at most, of ${destinationMax}`);
  const reported = [result.sourceAgentPeakMemoryBytes, result.destinationAgentPeakMemoryBytes];
  for (const [index, seen] of [source, destination].entries())
    t.ok(Math.abs(reported[index]! / 2 ** 20 - seen) < 16, `reported ${reported[index]} bytes, seen ${seen} MiB`);
  // away and back again at once: what a migration took is given back before the next one takes its own
  requireMoved(await migrate(rig, b, a, "large", ["--deadline", "30s", "--on-deadline", "force"]));
  requireMoved(await migrate(rig, a, b, "large", ["--deadline", "30s", "--on-deadline", "force"]));
  const later = peakMebibytes(a.source);
  t.ok(later < sourceMax, `source agent, in its second migration: ${later.toFixed(0)} MiB at most, of ${sourceMax}`);
  await assertOneGuest(t, rig, { name: "large", at: rig.b });
});

/** Most that was ever resident, as the kernel counts it. */
function peakMebibytes({ pid }: RigProcess): number {
  const peak = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(peak) / 1024;
}
