/** Tests how fast this host is found to be, compared with the host on which the usual costs were measured. */
import t from "tap";
import { measureHostSpeed, REFERENCE_BYTES } from "../../../agent-source/planning/host-speed.ts";
import { USUAL_COSTS_ZSTD_BYTES_PER_SECOND } from "../../../shared/model/observation.ts";
import { simulatePages } from "../../../shared/page/simulated-pages.ts";
import { ZstdPool } from "../../../shared/runtime/zstd/zstd-pool.ts";
import { PAGE_SIZE } from "../../../shared/units.ts";

/** Makes a clock by which each run takes the next of these times, again and again. */
function slowly(runsMs: readonly number[]) {
  let [nowMs, run, began] = [0, 0, false];
  return {
    monotonicMs: () => {
      if (began) nowMs += runsMs[run++ % runsMs.length] ?? 0;
      began = !began;
      return nowMs;
    },
  };
}

t.test("a host is as fast as its best run", async (t) => {
  const memory = new Uint8Array(new SharedArrayBuffer(2 * REFERENCE_BYTES));
  const zstd = new ZstdPool(memory, 1);
  t.teardown(() => zstd.close());
  const usualMs = (1000 * REFERENCE_BYTES) / USUAL_COSTS_ZSTD_BYTES_PER_SECOND;
  const speed = async (...runsMs: number[]) =>
    Number((await measureHostSpeed(zstd, memory, REFERENCE_BYTES, 0, slowly(runsMs))).toFixed(6));
  t.equal(await speed(usualMs), 1);
  t.equal(await speed(9 * usualMs, usualMs / 2, 40 * usualMs), 2, "other programs only ever make a run slower");
  t.equal(
    await speed(usualMs * 1000),
    1 / 8,
    "no speed is below an eighth, since a host or clock may have stood still",
  );
  t.equal(await speed(0), 8);
});

t.test("the reference pages are the same on every host, and compress as a guest's pages do", async (t) => {
  const [one, other] = [new Uint8Array(REFERENCE_BYTES), new Uint8Array(REFERENCE_BYTES + 64)];
  simulatePages(one, 0, REFERENCE_BYTES / PAGE_SIZE);
  simulatePages(other, 64, REFERENCE_BYTES / PAGE_SIZE);
  t.ok(Buffer.from(one).equals(other.subarray(64)));
  t.ok(
    other.subarray(0, 64).every((byte) => byte === 0),
    "nothing before the pages is touched",
  );
  const memory = new Uint8Array(new SharedArrayBuffer(2 * REFERENCE_BYTES));
  memory.set(one);
  const zstd = new ZstdPool(memory, 1);
  t.teardown(() => zstd.close());
  const ratio = REFERENCE_BYTES / (await zstd.compress(0, REFERENCE_BYTES, REFERENCE_BYTES, REFERENCE_BYTES, 1));
  t.ok(ratio > 2 && ratio < 4, `${ratio.toFixed(2)} times smaller`);
});
