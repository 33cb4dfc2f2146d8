/**
 * Reads and writes a guest's physical memory from outside, for tests. It is read through pmemsave and written through
 * QEMU's gdb stub, which is the only way to make a page wrong on purpose that every QEMU has.
 */
import { open, rm } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import { bounded, eventually } from "./bounded.ts";

const TIMEOUT_MS = 10_000;
/** How much memory is searched at a time, bytes. */
const CHUNK_BYTES = 64 << 20;

/**
 * Reads the bytes from a guest-physical address on. QEMU must be allowed to write to the folder. The bytes of a running
 * guest are not all of the same moment.
 */
export async function readMemory(
  monitor: QmpClient,
  from: number,
  length: number,
  { folder }: { folder: string },
): Promise<Buffer> {
  const filename = join(folder, `memory-${process.pid}`);
  const bytes = Buffer.allocUnsafeSlow(length);
  try {
    await monitor.execute("pmemsave", { val: from, size: length, filename }, { timeoutMs: 60_000 });
    const file = await open(filename);
    try {
      const { bytesRead } = await file.read(bytes, 0, length, 0);
      if (bytesRead !== length) throw new Error(`QEMU saved ${bytesRead} bytes of ${length}`);
    } finally {
      await file.close();
    }
  } finally {
    await rm(filename, { force: true });
  }
  return bytes;
}

/**
 * Changes the guest's memory without the guest's knowledge, as a fault in a migration would. A running guest is stopped
 * for that and then goes on (STOP and RESUME events). A stopped guest stays stopped.
 */
export async function writeMemory(
  monitor: QmpClient,
  address: number,
  bytes: Uint8Array,
  { folder }: { folder: string },
): Promise<void> {
  const path = join(folder, `gdb-${process.pid}`);
  const { running } = await monitor.execute("query-status");
  await humanCommand(monitor, `gdbserver unix:${path},server=on,wait=off`);
  try {
    const stub = await eventually(() => connectStub(path), { timeoutMs: TIMEOUT_MS, what: `the gdb stub at ${path}` });
    try {
      await ask(stub, "Qqemu.PhyMemMode:1");
      await ask(stub, `M${address.toString(16)},${bytes.length.toString(16)}:${Buffer.from(bytes).toString("hex")}`);
    } finally {
      // "detach" is not said, since it would start a guest that was stopped
      stub.destroy();
    }
  } finally {
    await humanCommand(monitor, "gdbserver none");
    await rm(path, { force: true });
  }
  if (running) await monitor.execute("cont");
}

/**
 * Finds a page that the workload has changed in its mode `counters` with 4 words.
 * @returns the guest-physical address of the page
 * @throws Error when there is no such page, since the workload has not walked yet or has other settings
 */
export async function findWorkloadPage(
  monitor: QmpClient,
  { memoryMiB, folder }: { memoryMiB: number; folder: string },
): Promise<number> {
  for (let from = 0; from < memoryMiB << 20; from += CHUNK_BYTES) {
    const length = Math.min(CHUNK_BYTES, (memoryMiB << 20) - from);
    const bytes = await readMemory(monitor, from, length, { folder });
    for (let offset = 0; offset < length; offset += PAGE_SIZE) if (isChanged(bytes, offset)) return from + offset;
  }
  throw new Error("No page of the guest's memory was changed by the workload");
}

/**
 * True if the words of a page are those of changed_value() in workload.c: page + 1 in the bits from 42 on, the slot in
 * the bits from 32 on, and the version below.
 */
function isChanged(bytes: Buffer, page: number): boolean {
  const words = [64, 192, 320, 448].map((word) => bytes.readBigUInt64LE(page + word * 8));
  const first = words[0]!;
  if (first >> 42n === 0n || first >> 42n > 1n << 20n || (first & 0xffffffffn) === 0n) return false;
  return words.every((word, slot) => word === first + (BigInt(slot) << 32n));
}

async function humanCommand(monitor: QmpClient, line: string): Promise<void> {
  await monitor.execute("human-monitor-command", { "command-line": line });
}

function connectStub(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => resolve(socket));
    socket.once("error", () => resolve(undefined));
  });
}

/** Sends one packet of gdb's remote protocol. @throws Error when the answer is not OK */
async function ask(stub: Socket, packet: string): Promise<void> {
  const sum = [...Buffer.from(packet)].reduce((total, byte) => (total + byte) & 0xff, 0);
  let received = "";
  const answer = new Promise<string>((resolve, reject) => {
    const read = (chunk: Buffer): void => {
      received += chunk.toString("latin1");
      const match = /\$([^#]*)#[0-9a-f]{2}/.exec(received);
      if (match === null) return;
      stub.off("data", read);
      resolve(match[1]!);
    };
    stub.on("data", read);
    stub.once("close", () => reject(new Error("The gdb stub closed the connection")));
  });
  stub.write(`$${packet}#${sum.toString(16).padStart(2, "0")}`);
  const text = await bounded(answer, TIMEOUT_MS, "the gdb stub's answer");
  stub.write("+");
  if (text !== "OK") throw new Error(`The gdb stub answered ${packet.slice(0, 40)} with ${text}`);
}
