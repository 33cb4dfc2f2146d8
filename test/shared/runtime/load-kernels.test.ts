/** Tests that the compiled kernels share their memory with sockets and with compression threads. */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { decompressInto } from "../../../shared/codec/zstd.ts";
import { KERNEL_RESERVED_BYTES } from "../../../shared/page/kernel-memory.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { ZstdPool } from "../../../shared/runtime/zstd/zstd-pool.ts";
import { address, PAGE_SIZE } from "../../../shared/units.ts";

const MIB = 1 << 20;

t.test("each instance of the kernels has a memory of its own", async (t) => {
  const [one, other] = [loadKernels(MIB), loadKernels(MIB)];
  one.memory[KERNEL_RESERVED_BYTES] = 1;
  t.equal(other.memory[KERNEL_RESERVED_BYTES], 0);
});

t.test("a socket is read straight into the kernels' memory", async (t) => {
  const kernels = loadKernels(2 * MIB);
  const sent = Buffer.alloc(MIB, "a page of a guest, ");
  // the path of a socket has at most 107 bytes, which are too few for t.testdir()
  const folder = mkdtempSync(join(tmpdir(), "ferry-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "socket");
  const server = createServer((socket) => socket.end(sent)).listen(path);
  await once(server, "listening");
  let at = KERNEL_RESERVED_BYTES;
  const { memory } = kernels;
  const socket = createConnection({
    path,
    onread: {
      buffer: () => Buffer.from(memory.buffer, at, 65536),
      callback: (length) => {
        at += length;
        return true;
      },
    },
  });
  await once(socket, "close");
  server.close();
  t.equal(at - KERNEL_RESERVED_BYTES, sent.length);
  t.ok(sent.equals(memory.subarray(KERNEL_RESERVED_BYTES, at)));
  t.equal(kernels.isZero(address(KERNEL_RESERVED_BYTES)), false, "the kernels see the bytes");
});

t.test("a compression thread reads and writes the kernels' memory in place", async (t) => {
  const kernels = loadKernels(2 * MIB);
  const from = address(KERNEL_RESERVED_BYTES);
  for (let offset = 0; offset < 256 * 1024; offset++) kernels.memory[from + offset] = offset >> 4;
  kernels.copy(address(from + PAGE_SIZE), from, PAGE_SIZE);
  const pool = new ZstdPool(kernels.memory, 1);
  t.teardown(() => pool.close());
  const length = await pool.compress(from, 256 * 1024, MIB, MIB, 1);
  t.ok(length > 0 && length < 256 * 1024, `${length}`);
  const back = new Uint8Array(256 * 1024);
  decompressInto(back, kernels.memory.slice(MIB, MIB + length));
  t.ok(Buffer.from(back).equals(kernels.memory.subarray(from, from + back.length)));
});
