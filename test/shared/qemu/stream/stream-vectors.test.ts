/** Tests the reader and the writer with precopy streams that real QEMUs wrote (test/vectors). */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import t from "tap";
import { GlobalState } from "../../../../shared/qemu/stream/global-state.ts";
import { type RamSetup, StreamReader, type StreamSink } from "../../../../shared/qemu/stream/stream-reader.ts";
import { packageRoot } from "../../../../shared/runtime/package-root.ts";
import type { VectorFacts } from "../../../support/capture-stream.ts";
import { seeded } from "../../../support/fake-guest.ts";
import { rewriteStream } from "../../../support/rewrite-stream.ts";

const FOLDER = join(packageRoot(), "test/vectors");
const HIGH_START = 0x100000;
const LOW_END = 0xa0000;

/** Records what the reader tells of a stream, and the guest memory that the stream makes. */
class Recorder implements StreamSink {
  readonly memory: Uint8Array;
  readonly log: string[] = [];
  readonly prologueBytes: Buffer[] = [];
  readonly deviceBytes: Buffer[] = [];
  setup: RamSetup | undefined;
  guest = new Uint8Array(0);
  pages = 0;
  zeroPages = 0;
  /** How many pages had come before. */
  repeats = 0;
  private readonly seen = new Set<number>();

  constructor(memory: Uint8Array) {
    this.memory = memory;
  }
  prologue(start: number, end: number): void {
    this.prologueBytes.push(Buffer.from(this.memory.slice(start, end)));
  }
  layout(setup: RamSetup): void {
    this.setup = setup;
    this.guest = new Uint8Array(setup.blocks.reduce((sum, block) => sum + block.byteLength, 0));
    this.log.push("layout");
  }
  page(page: number, at: number): boolean {
    this.pages++;
    this.count(page);
    this.guest.set(this.memory.subarray(at, at + 4096), page * 4096);
    return true;
  }
  zeroPage(page: number): boolean {
    this.zeroPages++;
    this.count(page);
    this.guest.fill(0, page * 4096, (page + 1) * 4096);
    return true;
  }
  partEnd(): boolean {
    return true;
  }
  stopped(): void {
    this.log.push("stopped");
  }
  ramEnd(): void {
    this.log.push("ramEnd");
  }
  device(start: number, end: number): void {
    this.deviceBytes.push(Buffer.from(this.memory.slice(start, end)));
  }
  end(): void {
    this.log.push("end");
  }
  private count(page: number): void {
    if (this.seen.has(page)) this.repeats++;
    this.seen.add(page);
  }
}

/** Reads the stream in pieces of the lengths that `next` gives. */
function read(stream: Buffer, next: () => number): Recorder {
  const memory = new Uint8Array(stream.length + 4096);
  const recorder = new Recorder(memory);
  const reader = new StreamReader(memory, recorder);
  let head = 0;
  for (let tail = 0; tail < stream.length; ) {
    const length = Math.min(next(), stream.length - tail);
    memory.set(stream.subarray(tail, tail + length), tail);
    tail += length;
    head = reader.consume(head, tail);
    if (tail - head >= reader.needs) throw new Error(`${tail - head} bytes were not enough`);
  }
  return recorder;
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

for (const file of readdirSync(FOLDER).filter((name) => /^pc-.*\.bin\.gz$/.test(name))) {
  const name = file.replace(".bin.gz", "");
  const stream = gunzipSync(readFileSync(join(FOLDER, file)));
  const facts: VectorFacts = JSON.parse(readFileSync(join(FOLDER, `${name}.json`), "utf8"));
  const whole = stream.length === facts.streamBytes;

  t.test(`${name}: machine, blocks and section are those of QEMU's monitor`, async (t) => {
    const { setup } = read(stream, () => 65536);
    t.equal(setup?.machineType, facts.machineType);
    t.strictSame(
      setup?.blocks.map((block) => [block.name, block.byteLength]),
      facts.blocks,
    );
    // the number is learned from the stream and never fixed: it is 2 with QEMU 7.2
    t.equal(setup?.ramSectionId, 1);
  });

  t.test(`${name}: the prologue is the stream's head without the commands`, async (t) => {
    const { prologueBytes } = read(stream, () => 997);
    const prologue = Buffer.concat(prologueBytes);
    const commands = Buffer.from("0800010000" + "0800020004" + "00000001", "hex");
    const at = stream.indexOf(commands);
    t.ok(at > 0, "OPEN_RETURN_PATH and PING stand after the configuration");
    const head = stream.subarray(0, prologue.length + commands.length);
    t.ok(prologue.equals(Buffer.concat([head.subarray(0, at), head.subarray(at + commands.length)])));
  });

  t.test(`${name}: any split reads the same`, async (t) => {
    const expected = read(stream, () => stream.length);
    const random = seeded(20);
    const sizes: (() => number)[] = [() => 1, () => 4096, () => 1 + Math.floor(random() * 9000)];
    for (const size of sizes) {
      const got = read(stream, size);
      t.strictSame(got.log, expected.log);
      t.equal(got.pages + got.zeroPages, expected.pages + expected.zeroPages);
      t.equal(sha256(got.guest), sha256(expected.guest));
      t.ok(Buffer.concat(got.deviceBytes).equals(Buffer.concat(expected.deviceBytes)));
    }
  });

  if (!whole) continue;
  t.test(`${name}: the pages make the memory that QEMU's monitor saved`, async (t) => {
    const got = read(stream, () => 65536);
    t.strictSame(got.log, ["layout", "stopped", "ramEnd", "end"]);
    t.ok(got.pages > 16 && got.zeroPages > 3000);
    t.ok(got.repeats >= 16, "pages that the guest changes come again");
    t.equal(got.setup?.blocks[0]?.name, "pc.ram");
    t.strictSame(
      [sha256(got.guest.subarray(0, LOW_END)), sha256(got.guest.subarray(HIGH_START, 16 << 20))],
      facts.memorySha256,
    );
  });

  t.test(`${name}: written again, the stream is the same, except for the commands`, async (t) => {
    const got = rewriteStream(stream);
    const commands = ["0800010000" + "0800020004" + "00000001", "08000b0000"].map((hex) => Buffer.from(hex, "hex"));
    const kept = commands.reduce((bytes, command) => {
      const at = bytes.indexOf(command);
      return at < 0 ? bytes : Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + command.length)]);
    }, stream);
    t.equal(stream.length - kept.length, facts.machineType === "pc-q35-8.1" ? 14 : 19);
    t.ok(got.bytes.equals(kept));
  });

  t.test(`${name}: the opaque part ends with the description of the machine`, async (t) => {
    const devices = Buffer.concat(read(stream, () => 65536).deviceBytes);
    t.ok(stream.subarray(stream.length - devices.length).equals(devices));
    t.equal(devices[0], 4, "the device state begins with a FULL section");
    const state = new GlobalState();
    state.push(devices);
    t.equal(state.runState, "running", "the device state says how the guest was stopped");
    const at = devices.indexOf('{"configuration"');
    t.equal(devices.readUInt32BE(at - 4), devices.length - at);
    t.match(JSON.parse(devices.toString("latin1", at)), { page_size: 4096, devices: Array });
  });
}
