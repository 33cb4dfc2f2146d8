/** Tests that the destination's replay lets nothing wrong reach QEMU, with frames that no source agent sends. */
import type { Socket } from "node:net";
import { Writable } from "node:stream";
import fc from "fast-check";
import t from "tap";
import { compress } from "zstd-napi";
import { Replay } from "../../agent-destination/replay/replay.ts";
import { frameBufferBytes } from "../../shared/codec/page-frame.ts";
import type { FaultCode, MigrationFault } from "../../shared/fault.ts";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { Contract } from "../../shared/protocol/messages.ts";
import type { Frame } from "../../shared/protocol/stream-messages.ts";
import { StreamReader, type StreamSink } from "../../shared/qemu/stream/stream-reader.ts";
import { systemClock } from "../../shared/runtime/clock.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { address, PAGE_SIZE } from "../../shared/units.ts";
import { StreamBytes, streamHead } from "../support/fake-stream.ts";
import {
  AT,
  BLOCKS,
  contract,
  delta,
  FRAME_BYTES,
  frame,
  GOOD,
  kernels,
  PAGES,
  pages,
  SECTION,
  squeezed,
} from "../support/frames.ts";
import { FILE_MS, forAWhileAsync, named, spoiled } from "../support/hostile.ts";
import { memoryTransfer } from "../support/memory-link.ts";

t.setTimeout(FILE_MS);

const CODES: readonly FaultCode[] = ["peer-invalid", "checksum-mismatch"];

let shared: PageKernels | undefined;

/**
 * Makes a replay.
 * @param write is called with each piece that the replay writes to QEMU; `taken` says that QEMU has it
 */
function replayTo(write: (bytes: Buffer, taken: () => void) => void, agreed: Contract = contract) {
  const stream = new Writable({
    highWaterMark: 1 << 30,
    write: (piece: Buffer, _, taken) => write(Buffer.from(piece), taken),
  });
  const { source, destination } = memoryTransfer();
  source.receive(() => undefined);
  const faults: MigrationFault[] = [];
  const replay = new Replay({
    createKernels: (byteLength) => {
      // all replays share one memory, since the collector frees the memories of thousands of replays late
      shared ??= loadKernels(byteLength);
      return shared;
    },
    contract: agreed,
    channel: destination,
    socket: stream as unknown as Socket,
    clock: systemClock,
    onFault: (fault) => faults.push(fault),
    corruptPage: false,
  });
  return { replay, faults };
}

/** Makes a replay that has its layout, with all that it has written to QEMU. */
function started(agreed: Contract = contract) {
  const written: Buffer[] = [];
  const { replay, faults } = replayTo((bytes, taken) => {
    written.push(bytes);
    taken();
  }, agreed);
  replay.layout(BLOCKS, SECTION);
  return { replay, faults, written };
}

const setup = streamHead().u8(1).be32(SECTION).name("ram").be32(0).be32(4);
setup.be64(PAGES * PAGE_SIZE + 4);
for (const { name, byteLength } of BLOCKS) setup.name(name).be64(byteLength);
const HEAD = setup.be64(0x10).u8(0x7e).be32(SECTION).done();

/**
 * Checks that QEMU would take these sections, by StreamReader. That reader does not know XBZRLE, so each delta is
 * checked here and then replaced by a whole page.
 * @throws Error when QEMU would not take them
 */
function checkSections(written: readonly Buffer[]): void {
  const sections = Buffer.concat(written);
  const seen = new StreamBytes().bytes(HEAD);
  let at = 0;
  while (at < sections.length) {
    if (sections[at] !== 2 || sections.readUInt32BE(at + 1) !== SECTION) throw new Error(`no section at ${at}`);
    seen.bytes(sections.subarray(at, at + 5));
    at += 5;
    for (;;) {
      const head = sections.readBigUInt64BE(at);
      const flags = Number(head & 0xfffn);
      const start = at;
      at += 8;
      if (flags === 0x10) break;
      if ((flags & 0x20) === 0) at += 1 + sections[at]!;
      if ((flags & 0x40) === 0) {
        at += (flags & 2) !== 0 ? 1 : PAGE_SIZE;
        seen.bytes(sections.subarray(start, at));
        continue;
      }
      seen.be64(Number(head ^ 0x48n)).bytes(sections.subarray(start + 8, at));
      if (sections[at] !== 1) throw new Error("a delta without its mark");
      const length = sections.readUInt16BE(at + 1);
      at += 3;
      kernels.memory.set(sections.subarray(at, at + length), AT);
      if (!kernels.deltaIsValid(address(AT), length)) throw new Error("a delta that QEMU does not take");
      at += length;
      seen.bytes(Buffer.alloc(PAGE_SIZE));
    }
    if (sections[at] !== 0x7e) throw new Error(`no footer at ${at}`);
    seen.be64(0x10).bytes(sections.subarray(at, at + 5));
    at += 5;
  }
  const bytes = seen.done();
  const yes = (): boolean => true;
  const none = (): void => undefined;
  const told = { prologue: none, layout: none, stopped: none, ramEnd: none, device: none, end: none };
  const sink: StreamSink = { ...told, page: yes, zeroPage: yes, partEnd: yes };
  const left = bytes.length - new StreamReader(bytes, sink).consume(0, bytes.length);
  if (left !== 0) throw new Error(`${left} bytes too many`);
}

t.test("whatever a source sends, the replay writes only sections that QEMU takes", async () => {
  const body = fc.oneof(spoiled(GOOD), fc.constantFrom(...GOOD));
  const change = fc.constantFrom<(sent: Frame) => Partial<Frame>>(
    () => ({}),
    () => ({}),
    () => ({}),
    (sent) => ({ sequence: sent.sequence + 1 }),
    () => ({ sequence: 1 }),
    (sent) => ({ rawLength: sent.rawLength + 1 }),
    () => ({ rawLength: 0 }),
    () => ({ rawLength: 2 ** 32 - 1 }),
    () => ({ checksum: Buffer.alloc(8, 1) }),
    (sent) => ({ codec: sent.codec === "none" ? "zstd" : "none" }),
    () => ({ body: Buffer.alloc(0) }),
  );
  await forAWhileAsync(fc.array(fc.tuple(body, change, fc.boolean()), { minLength: 8, maxLength: 8 }), async (sent) => {
    const { replay, faults, written } = started();
    let sequence = 1;
    named(CODES, () => {
      for (const [given, changes, compressed] of sent) {
        const bytes = given.subarray(0, FRAME_BYTES);
        const whole = compressed ? squeezed(sequence, bytes) : frame(sequence, bytes);
        replay.take({ ...whole, ...changes(whole) });
        sequence++;
      }
    });
    if (faults[0] !== undefined) throw faults[0];
    // a frame of this length is written only after it was read to its end, so QEMU has whole sections
    checkSections(written);
    // the callbacks of the writes come in the next turn of the event loop
    await new Promise((resolve) => setImmediate(resolve));
  });
});

t.test("a decompression bomb is refused before it takes memory, whatever length it claims", async (t) => {
  const bomb = compress(Buffer.alloc(512 << 20));
  t.ok(bomb.length < 65_536, `${bomb.length} bytes`);
  const before = process.memoryUsage.rss();
  const refused: readonly (readonly [changes: Partial<Frame>, message: RegExp])[] = [
    [{ body: bomb, rawLength: 512 << 20 }, /a frame of 536870912 bytes; agreed on 65536/],
    [{ body: bomb, rawLength: 65_536 }, /cannot be read/],
    [{ body: compress(Buffer.alloc(100)), rawLength: 200 }, /decompresses to 100 bytes, not 200/],
    [{ body: compress(Buffer.alloc(2000)), rawLength: 1000 }, /cannot be read/],
    [{ body: Buffer.alloc(65_536, 7), rawLength: 65_536 }, /cannot be read/],
    [{ body: Buffer.concat([compress(Buffer.alloc(0)), Buffer.alloc(1 << 20)]), rawLength: 9 }, /compressed bytes for/],
  ];
  for (const [changes, message] of refused)
    t.throws(() => started().replay.take(squeezed(1, Buffer.alloc(1), changes)), { code: "peer-invalid", message });
  t.ok(process.memoryUsage.rss() - before < 64 << 20);
});

t.test("the replay refuses deltas and compressed frames that were not negotiated", async (t) => {
  const plain = { ...contract, codecs: [] };
  t.throws(() => started(plain).replay.take(frame(1, GOOD[1]!)), {
    code: "peer-invalid",
    message: /a delta, where none is allowed/,
  });
  t.throws(() => started(plain).replay.take(squeezed(1, GOOD[0]!)), {
    code: "peer-invalid",
    message: /compressed frame/,
  });
});

t.test("a delta that QEMU would refuse does not reach QEMU", async (t) => {
  const wrong: readonly (readonly number[])[] = [
    [],
    [0],
    [0, 0],
    [0, 5, 1],
    [1, 1, 7, 0, 1, 7],
    [0x80, 0x20, 1, 7],
    [0xff, 0xff, 1, 7],
    [0, 1, 7, 3],
    [0xff, 0x1f, 2, 7, 7],
  ];
  for (const xbzrle of wrong) {
    const { replay, written } = started();
    const body = pages((w) => delta(w, 5, xbzrle));
    t.throws(() => replay.take(frame(1, body)), { code: "peer-invalid", message: /not XBZRLE/ }, xbzrle.join());
    t.same(written, []);
  }
});

t.test("after a refused record nothing more reaches QEMU, even if QEMU takes more later", async (t) => {
  const written: Buffer[] = [];
  const taken: (() => void)[] = [];
  const { replay } = replayTo((bytes, done) => {
    written.push(bytes);
    taken.push(done);
  });
  replay.layout(BLOCKS, SECTION);
  replay.take(frame(1, GOOD[0]!));
  const body = pages((w) => {
    delta(w, 5, [0, 0]);
    w.zeroRun(7, 1);
  });
  t.throws(() => replay.take(frame(2, body)), { code: "peer-invalid" });
  for (const done of taken) done();
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(written.length, 1);
  checkSections(written);
});

t.test("the replay refuses more zero pages than the guest has, and pages outside of the guest", async (t) => {
  const many = pages((w) => {
    w.zeroRun(0, PAGES);
    w.zeroRun(5, 1);
  });
  t.throws(() => started().replay.take(frame(1, many)), {
    code: "peer-invalid",
    message: /more zero pages than the 64/,
  });
  const outside = [
    pages((w) => w.full(64, address(KERNEL_RESERVED_BYTES))),
    pages((w) => w.zeroRun(60, 5)),
    pages((w) => delta(w, 2 ** 27, [0, 1, 7])),
  ];
  for (const body of outside)
    t.throws(() => started().replay.take(frame(1, body)), { code: "peer-invalid", message: /of 64/ });
});

t.test("verbatim frames come before and after the page frames, and not between them", async (t) => {
  const { replay } = started();
  replay.take(frame(1, Buffer.from("head"), { frameKind: "verbatim" }));
  replay.take(frame(2, GOOD[0]!));
  replay.take(frame(3, Buffer.from("tail"), { frameKind: "verbatim" }));
  replay.take(frame(4, Buffer.from("tail"), { frameKind: "verbatim" }));
  t.throws(() => replay.take(frame(5, GOOD[0]!)), { code: "peer-invalid", message: /after the end of QEMU's RAM/ });
});

t.test("a layout that differs from the contract's in any block is refused", async (t) => {
  const [ram, bios] = BLOCKS;
  const { replay } = replayTo((_, taken) => taken());
  const layouts = [
    [],
    [ram!],
    [ram!, ram!, bios!],
    [ram!, bios!, { ...bios!, name: "x" }],
    [ram!, { ...bios!, byteLength: 4095 }],
    [ram!, { ...bios!, pageSize: 2 << 20 }],
  ];
  for (const blocks of layouts)
    t.throws(() => replay.layout(blocks, SECTION), { code: "peer-invalid", message: /not the one agreed on/ });
  replay.layout(BLOCKS, SECTION);
  t.throws(() => replay.layout(BLOCKS, SECTION), { code: "peer-invalid", message: /second layout/ });
});

t.test("the replay refuses more bytes in flight than were agreed on while QEMU takes nothing", async (t) => {
  const { replay } = replayTo(() => undefined);
  replay.layout(BLOCKS, SECTION);
  const body = pages((w) => {
    for (let page = 0; page < 15; page++) w.full(page, address(KERNEL_RESERVED_BYTES));
  });
  const window = contract.creditWindowBytes + 16 * frameBufferBytes(FRAME_BYTES);
  let sent = 0;
  const fault = t.throws(
    () => {
      for (let sequence = 1; sequence < 1000; sequence++) {
        replay.take(frame(sequence, body));
        sent += body.length;
      }
    },
    { code: "peer-invalid", message: /still wait for QEMU; the agreed credit is 1048576 bytes/ },
  );
  t.ok(fault);
  // bytes that the output buffers took count as applied
  t.ok(sent < window + (3 << 20), `${sent} bytes`);
});
