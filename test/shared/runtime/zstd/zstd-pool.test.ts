/** Tests `ZstdPool`: compression on threads, within a shared memory. */
import { once } from "node:events";
import type { Worker } from "node:worker_threads";
import t from "tap";
import { decompressInto } from "../../../../shared/codec/zstd.ts";
import { returnMemory } from "../../../../shared/runtime/v8/return-memory.ts";
import { ZstdPool } from "../../../../shared/runtime/zstd/zstd-pool.ts";
import { waitingThreads } from "../../../../shared/runtime/zstd/zstd-threads.ts";
import { eventually } from "../../../support/bounded.ts";

const MIB = 1 << 20;

/** Makes memory whose pages can be compressed, like the pages of a process. */
function sharedMemory(byteLength: number): Uint8Array {
  const memory = new Uint8Array(new SharedArrayBuffer(byteLength));
  for (let at = 0; at < byteLength; at++) memory[at] = at & 8 ? (at >> 4) * 31 : 0;
  return memory;
}

function pool(t: { teardown(done: () => Promise<void>): unknown }, memory: Uint8Array, workers: number): ZstdPool {
  const made = new ZstdPool(memory, workers);
  t.teardown(() => made.close());
  return made;
}

t.test("what a worker has compressed in place becomes the same bytes again", async (t) => {
  const memory = sharedMemory(4 * MIB);
  const zstd = pool(t, memory, 1);
  for (const level of [-50, 1, 3]) {
    const length = await zstd.compress(4096, 256 * 1024, 2 * MIB, MIB, level);
    t.ok(length > 0 && length < 256 * 1024, `level ${level}: ${length}`);
    const back = new Uint8Array(256 * 1024);
    t.equal(decompressInto(back, memory.slice(2 * MIB, 2 * MIB + length)), back.length);
    t.same(Buffer.compare(back, memory.slice(4096, 4096 + back.length)), 0);
  }
});

t.test("an output that does not fit is reported as -1, and nothing beyond its limit is touched", async (t) => {
  const memory = sharedMemory(2 * MIB);
  const zstd = pool(t, memory, 1);
  const behind = memory.slice(MIB + 100, MIB + 4096);
  t.equal(await zstd.compress(0, 65536, MIB, 100, 1), -1);
  t.same(memory.slice(MIB + 100, MIB + 4096), behind);
  t.ok((await zstd.compress(0, 65536, MIB, 65536, 1)) > 0, "the worker goes on");
});

t.test("many jobs on several workers each get their own result", async (t) => {
  const memory = sharedMemory(16 * MIB);
  const zstd = pool(t, memory, 2);
  const lengths = Array.from({ length: 64 }, (_, job) => 4096 * (1 + (job % 16)));
  t.equal(zstd.room, 64);
  const results = lengths.map((length, job) => zstd.compress(job * 65536, length, 8 * MIB + job * 65536, 65536, 1));
  t.equal(zstd.room, 0);
  t.throws(() => zstd.compress(0, 1, 8 * MIB, 65536, 1), RangeError, "the queue is bounded");
  const written = await Promise.all(results);
  t.equal(zstd.room, 64);
  for (const [job, length] of lengths.entries()) {
    const start = 8 * MIB + job * 65536;
    const back = new Uint8Array(length);
    t.equal(decompressInto(back, memory.slice(start, start + (written[job] ?? 0))), length, `job ${job}`);
    t.equal(Buffer.compare(back, memory.slice(job * 65536, job * 65536 + length)), 0);
  }
});

t.test("ranges outside of the memory and memory that is not shared are mistakes", async (t) => {
  const memory = sharedMemory(65536);
  const zstd = pool(t, memory, 1);
  t.throws(() => zstd.compress(0, 65537, 0, 10, 1), RangeError);
  t.throws(() => zstd.compress(0, 10, 65530, 10, 1), RangeError);
  t.throws(() => zstd.compress(-1, 10, 0, 10, 1), RangeError);
  t.throws(() => new ZstdPool(new Uint8Array(10), 1), TypeError);
  t.throws(() => new ZstdPool(memory, 0), RangeError);
});

t.test("closing rejects what is pending, and later jobs", async (t) => {
  const memory = sharedMemory(4 * MIB);
  const zstd = new ZstdPool(memory, 1);
  const pending = zstd.compress(0, MIB, 2 * MIB, MIB, 19);
  const rejected = t.rejects(pending, { code: "cancelled" });
  await zstd.close();
  await rejected;
  await t.rejects(zstd.compress(0, 10, 2 * MIB, MIB, 1), { code: "cancelled" });
  await zstd.close();
});

/** Finds the workers of a pool. */
function workersOf(zstd: ZstdPool): readonly Worker[] {
  const { threads } = zstd as unknown as { threads: { worker: Worker }[] };
  return threads.map(({ worker }) => worker);
}

t.test("the threads of a pool that is released do the work of the next pool, in its memory", async (t) => {
  const memories = [sharedMemory(4 * MIB), sharedMemory(2 * MIB)];
  memories[1]?.fill(7, 0, 65536);
  const seen: Worker[] = [];
  for (const memory of memories) {
    const zstd = pool(t, memory, 1);
    seen.push(...workersOf(zstd));
    const length = await zstd.compress(0, 65536, MIB, 65536, 1);
    const back = new Uint8Array(65536);
    decompressInto(back, memory.slice(MIB, MIB + length));
    t.equal(Buffer.compare(back, memory.slice(0, 65536)), 0);
    await zstd.release();
    await t.rejects(zstd.compress(0, 10, MIB, 10, 1), { code: "cancelled" });
    await eventually(() => waitingThreads() === 1 || undefined, { timeoutMs: 10_000, what: "the thread to be ready" });
  }
  t.equal(seen[0], seen[1]);
});

t.test("a thread with a job is ended with its pool, and not kept", async (t) => {
  const memory = sharedMemory(4 * MIB);
  const zstd = pool(t, memory, 1);
  const [worker] = workersOf(zstd);
  const rejected = t.rejects(zstd.compress(0, MIB, 2 * MIB, MIB, 19), { code: "cancelled" });
  const ended = worker === undefined ? undefined : once(worker, "exit");
  await zstd.release();
  await rejected;
  await ended;
  t.not(workersOf(pool(t, memory, 1))[0], worker);
});

t.test("a thread that waits holds nothing of the memory in which it worked", async (t) => {
  const used = (): number => process.memoryUsage.rss() / MIB;
  const before = used();
  const work = async (): Promise<void> => {
    const memory = new Uint8Array(new SharedArrayBuffer(256 * MIB)).fill(1);
    const zstd = new ZstdPool(memory, 1);
    await zstd.compress(0, 65536, MIB, 65536, 1);
    t.ok(used() > before + 200, `${used()} MiB`);
    await zstd.release();
  };
  await work();
  await eventually(() => waitingThreads() === 1 || undefined, { timeoutMs: 10_000, what: "the thread to be ready" });
  await returnMemory();
  await eventually(() => used() < before + 100 || undefined, {
    timeoutMs: 10_000,
    what: "the memory to be given back",
  });
});

t.test("a thread that dies while it waits is not handed out", async (t) => {
  const memory = sharedMemory(4 * MIB);
  const zstd = new ZstdPool(memory, 1);
  const [worker] = workersOf(zstd);
  await zstd.release();
  await eventually(() => waitingThreads() === 1 || undefined, { timeoutMs: 10_000, what: "the thread to be ready" });
  await worker?.terminate();
  t.equal(waitingThreads(), 0);
  t.ok((await pool(t, memory, 1).compress(0, 65536, MIB, 65536, 1)) > 0);
});

t.test("a worker that dies rejects everything with a fault", async (t) => {
  const memory = sharedMemory(4 * MIB);
  const zstd = pool(t, memory, 2);
  const pending = [0, 1].map(() => zstd.compress(0, MIB, 2 * MIB, MIB, 19));
  await workersOf(zstd)[0]?.terminate();
  for (const job of pending) await t.rejects(job, { code: "internal", message: /compression worker failed/ });
  await t.rejects(zstd.compress(0, 10, 2 * MIB, MIB, 1), { code: "internal" });
});
