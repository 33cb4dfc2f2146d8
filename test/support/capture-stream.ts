/**
 * Captures the vectors in test/vectors from the QEMU that is installed: `node dist/test/support/capture-stream.js`. The
 * tests do not run this program. They read the vectors that it wrote. See test/vectors/PROVENANCE.md.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { MigrationFault } from "../../shared/fault.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { encodePong, encodeShut, encodeSwitchoverAck } from "../../shared/qemu/return-path/return-path.ts";
import { type PostcopySink, StreamReader, type StreamSink } from "../../shared/qemu/stream/stream-reader.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { eventually } from "./bounded.ts";

/** How much of a stream is kept in a vector that has only the head of a stream. */
const HEAD_BYTES = 12 * 1024;
/** The guests' memory below the hole at 640 KiB, and from 1 MiB on. Both are RAM on every PC. */
const LOW_END = 0xa0000;
const HIGH_START = 0x100000;
const HIGH_END = 16 << 20;

/** What a test needs to check a vector without QEMU. */
export interface VectorFacts {
  readonly qemu: string;
  readonly arguments: string;
  readonly machineType: string;
  /**
   * The SHA-256 of the guest's memory after the migration, as QEMU's pmemsave wrote it: of [0, 640 KiB) and of [1 MiB,
   * 16 MiB).
   */
  readonly memorySha256?: readonly [low: string, high: string];
  /** The RAM blocks that "info ramblock" of the same QEMU lists: name and used length in bytes. */
  readonly blocks: readonly (readonly [name: string, byteLength: number])[];
  readonly streamBytes: number;
}

interface Vector {
  readonly name: string;
  readonly arguments: readonly string[];
  /** True if only the first HEAD_BYTES are kept. */
  readonly headOnly: boolean;
  /**
   * If it is given, the migration has the capability postcopy-ram, and completes by post-copy ("used") or as in precopy
   * ("unused").
   */
  readonly postcopy?: "used" | "unused";
}

const tiny = (machine: string): string[] => `-M ${machine} -nodefaults -display none -m 16 -bios BIOS`.split(" ");

const VECTORS: readonly Vector[] = [
  { name: "pc-q35-8.1-stream", arguments: tiny("pc-q35-8.1"), headOnly: false },
  { name: "pc-i440fx-10.0-stream", arguments: tiny("pc-i440fx-10.0"), headOnly: false },
  { name: "postcopy-pc-i440fx-10.0", arguments: tiny("pc-i440fx-10.0"), headOnly: false, postcopy: "used" },
  { name: "postcopy-unused-pc-i440fx-10.0", arguments: tiny("pc-i440fx-10.0"), headOnly: false, postcopy: "unused" },
  {
    name: "pc-q35-8.1-head",
    arguments: "-M pc-q35-8.1 -nodefaults -display none -m 32 -vga std -device e1000 -device virtio-net-pci".split(" "),
    headOnly: true,
  },
  {
    name: "pc-i440fx-10.0-head",
    arguments: "-M pc-i440fx-10.0 -nodefaults -display none -m 32 -vga std -device rtl8139".split(" "),
    headOnly: true,
  },
];

/** Makes a firmware of 64 KiB that increases one byte in each of 16 pages from 0x8000 on, for ever. */
function counterBios(): Uint8Array {
  const bios = new Uint8Array(65536);
  // mov ax,0x800; mov ds,ax; xor bx,bx; inc byte [bx]; add bx,0x1000; jmp to inc
  bios.set([0xb8, 0x00, 0x08, 0x8e, 0xd8, 0x31, 0xdb, 0xfe, 0x07, 0x81, 0xc3, 0x00, 0x10, 0xeb, 0xf8], 0xe000);
  // jmp f000:e000, at the address where the CPU begins
  bios.set([0xea, 0x00, 0xe0, 0x00, 0xf0], 0xfff0);
  return bios;
}

function monitorOf(path: string): Promise<QmpClient> {
  const connect = (): Promise<QmpClient | undefined> =>
    QmpClient.connect(path).catch((thrown: unknown) => {
      if (MigrationFault.from(thrown).code !== "qmp-unreachable") throw thrown;
      return undefined;
    });
  return eventually(connect, { timeoutMs: 10_000, everyMs: 20, what: "QEMU's monitor" });
}

/** Reads a whole migration as an agent would, and answers QEMU on the return path. @returns all bytes of the stream */
async function captureFrom(qmp: QmpClient, path: string, mode: Vector["postcopy"]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const socket = await new Promise<Socket>((resolve, reject) => {
    const server = createServer((accepted) => {
      server.close();
      resolve(accepted);
    });
    server.listen(path, () => void prepare(qmp, path, mode).catch(reject));
  });
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  let sections = 0;
  const taken = (): boolean => true;
  const sink: StreamSink = {
    prologue: () => undefined,
    layout: () => undefined,
    page: taken,
    zeroPage: taken,
    // the switchover waits until pages of two passes have come, so that records repeat
    partEnd: () => {
      sections += 1;
      if (sections === (mode === "used" ? 1 : 3)) void allowSwitchover(qmp, socket, mode === "used");
      return true;
    },
    stopped: () => undefined,
    ramEnd: () => undefined,
    device: () => undefined,
    end: () => void socket.write(encodeShut(0)),
  };
  const none = (): void => undefined;
  const pieces = { advised: none, discard: none, packageStart: none, packageBytes: none };
  const postcopy: PostcopySink = {
    ...pieces,
    packageEnd: () => sink,
    ping: (value) => void socket.write(encodePong(value)),
  };
  const memory = new Uint8Array(4 << 20);
  const reader = new StreamReader(memory, sink, {}, postcopy);
  let left = 0;
  socket.on("data", (chunk) => {
    chunks.push(chunk);
    memory.set(chunk, left);
    const at = reader.consume(0, left + chunk.length);
    memory.copyWithin(0, at, left + chunk.length);
    left += chunk.length - at;
  });
  await qmp.waitFor("MIGRATION", (event) => event.data.status === "completed", { timeoutMs: 60_000 });
  await closed;
  return Buffer.concat(chunks);
}

async function allowSwitchover(qmp: QmpClient, socket: Socket, postcopy: boolean): Promise<void> {
  if (postcopy) await qmp.execute("migrate-start-postcopy");
  socket.write(encodeSwitchoverAck());
}

async function prepare(qmp: QmpClient, path: string, mode: Vector["postcopy"]): Promise<void> {
  const names = ["return-path", "switchover-ack", "events", ...(mode === undefined ? [] : ["postcopy-ram"])];
  const capabilities = names.map((capability) => ({ capability, state: true }));
  await qmp.execute("migrate-set-capabilities", { capabilities });
  // in post-copy the migration is slow, so that a part of the first pass is left for post-copy
  const limits =
    mode === "used"
      ? { "max-bandwidth": 500_000, "downtime-limit": 1 }
      : { "max-bandwidth": 0, "downtime-limit": 2000 };
  await qmp.execute("migrate-set-parameters", limits);
  await qmp.execute("migrate", { uri: `unix:${path}` });
}

async function sha256Of(qmp: QmpClient, folder: string, from: number, to: number): Promise<string> {
  const filename = join(folder, "memory");
  await qmp.execute("pmemsave", { val: from, size: to - from, filename });
  return createHash("sha256").update(readFileSync(filename)).digest("hex");
}

async function capture(vector: Vector, folder: string): Promise<void> {
  const bios = join(folder, "bios");
  writeFileSync(bios, counterBios());
  const monitor = join(folder, "qmp");
  const args = vector.arguments.map((one) => (one === "BIOS" ? bios : one));
  const qemu = spawn("qemu-system-x86_64", [...args, "-accel", "tcg", "-qmp", `unix:${monitor},server=on,wait=off`], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  const exit = new Promise((resolve) => qemu.once("exit", resolve));
  try {
    const qmp = await monitorOf(monitor);
    const { version, package: build } = qmp.greeting;
    const table = await qmp.execute("human-monitor-command", { "command-line": "info ramblock" });
    const type = await qmp.execute("qom-get", { path: "/machine", property: "type" });
    const stream = await captureFrom(qmp, join(folder, "stream"), vector.postcopy);
    const facts: VectorFacts = {
      qemu: `${version.major}.${version.minor}.${version.micro} (${build})`,
      arguments: vector.arguments.join(" "),
      machineType: String(type).replace(/-machine$/, ""),
      blocks: [...table.matchAll(/^ *(\S+) +\d+ \wi?B? +\S+ +(0x\S+)/gm)].map(([, name, used]) => [
        name!,
        Number(used),
      ]),
      streamBytes: stream.length,
      ...(vector.headOnly
        ? {}
        : {
            memorySha256: [await sha256Of(qmp, folder, 0, LOW_END), await sha256Of(qmp, folder, HIGH_START, HIGH_END)],
          }),
    };
    const kept = vector.headOnly ? stream.subarray(0, HEAD_BYTES) : stream;
    const to = join(packageRoot(), "test/vectors", vector.name);
    writeFileSync(`${to}.bin.gz`, gzipSync(kept, { level: 9 }));
    writeFileSync(`${to}.json`, `${JSON.stringify(facts, undefined, 2)}\n`);
    qmp.close();
  } finally {
    qemu.kill("SIGKILL");
    await exit;
  }
}

// captures all vectors, or those whose names begin with an argument
const wanted = process.argv.slice(2);
for (const vector of VECTORS.filter(({ name }) => wanted.length === 0 || wanted.some((one) => name.startsWith(one)))) {
  const folder = mkdtempSync(join(tmpdir(), "ferry-capture-"));
  try {
    await capture(vector, folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
