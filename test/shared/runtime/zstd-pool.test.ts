import t from "tap";
import { decompressInto } from "../../../shared/codec/zstd.ts";
import { ZstdPool } from "../../../shared/runtime/zstd-pool.ts";

const MIB = 1 << 20;

/** Memory whose pages can be compressed, like a process's. */
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

t.test("what a worker compresses in place is what was there", async (t) => {
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

t.test("an output that does not fit is told as -1 and nothing beyond its limit is touched", async (t) => {
  const memory = sharedMemory(2 * MIB);
  const zstd = pool(t, memory, 1);
  const behind = memory.slice(MIB + 100, MIB + 4096);
  t.equal(await zstd.compress(0, 65536, MIB, 100, 1), -1);
  t.same(memory.slice(MIB + 100, MIB + 4096), behind);
  t.ok((await zstd.compress(0, 65536, MIB, 65536, 1)) > 0, "and the worker goes on");
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

t.test("a worker that dies rejects everything with a fault", async (t) => {
  const memory = sharedMemory(4 * MIB);
  const zstd = pool(t, memory, 2);
  const pending = [0, 1].map(() => zstd.compress(0, MIB, 2 * MIB, MIB, 19));
  const { threads } = zstd as unknown as { threads: { worker: { terminate(): Promise<number> } }[] };
  await threads[0]?.worker.terminate();
  for (const job of pending) await t.rejects(job, { code: "internal", message: /compression worker failed/ });
  await t.rejects(zstd.compress(0, 10, 2 * MIB, MIB, 1), { code: "internal" });
});
