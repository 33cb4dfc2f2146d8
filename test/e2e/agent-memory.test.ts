/**
 * Holds both agents to their promise: the memory of an agent is bounded by its configuration, whatever the guest does
 * (docs/design/memory-and-v8.md#the-promise).
 */
import t from "tap";
import { assertOneGuest } from "../support/after-migration.ts";
import { migrate, requireMoved } from "../support/ferry-json.ts";
import { openPair } from "../support/pair.ts";
import { BESIDE_SETTINGS_MIB, peakMebibytes } from "../support/promised-memory.ts";

t.setTimeout(480_000);
const ARENA_MIB = 16;
const BASE_CACHE_MIB = 32;
const WINDOW_MIB = 16;

t.test("both agents stay within their memory budgets while they move a guest that is far larger", async (t) => {
  const { rig, a, b } = await openPair(t, {
    guest: { name: "large", memoryMiB: 512, workload: { regionMiB: 64, fillMiB: 256, rate: 100e6 } },
    a: { rehearsed: true, source: [`--memory-arena=${ARENA_MIB}MiB`, `--memory-base-cache=${BASE_CACHE_MIB}MiB`] },
    b: { rehearsed: true, destination: [`--receive-window=${WINDOW_MIB}MiB`] },
  });
  const { result } = requireMoved(await migrate(rig, a, b, "large", ["--deadline", "30s", "--on-deadline", "force"]));
  const [source, destination] = [peakMebibytes(a.source), peakMebibytes(b.destination)];
  const sourceMax = ARENA_MIB + BASE_CACHE_MIB + BESIDE_SETTINGS_MIB.source;
  t.ok(source < sourceMax, `source agent: ${source.toFixed(0)} MiB at most, of ${sourceMax}`);
  const destinationMax = WINDOW_MIB + BESIDE_SETTINGS_MIB.destination;
  t.ok(destination < destinationMax, `destination agent: ${destination.toFixed(0)} MiB at most, of ${destinationMax}`);
  const reported = [result.sourceAgentPeakMemoryBytes, result.destinationAgentPeakMemoryBytes];
  for (const [index, seen] of [source, destination].entries())
    t.ok(Math.abs(reported[index]! / 2 ** 20 - seen) < 16, `reported ${reported[index]} bytes, seen ${seen} MiB`);
  // the guest moves back and forth at once: an agent gives back what a migration took before the next migration takes
  // its own
  requireMoved(await migrate(rig, b, a, "large", ["--deadline", "30s", "--on-deadline", "force"]));
  requireMoved(await migrate(rig, a, b, "large", ["--deadline", "30s", "--on-deadline", "force"]));
  const later = peakMebibytes(a.source);
  t.ok(later < sourceMax, `source agent, in its second migration: ${later.toFixed(0)} MiB at most, of ${sourceMax}`);
  await assertOneGuest(t, rig, { name: "large", at: rig.b });
});
