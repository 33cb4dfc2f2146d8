import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../../shared/fault.ts";
import { StreamReader, type StreamSink } from "../../../shared/qemu/stream-reader.ts";
import { encodeRamEnd, StreamWriter } from "../../../shared/qemu/stream-writer.ts";
import { type FakeStreamOptions, fakeStream, StreamBytes } from "../../support/fake-stream.ts";

/** Reads a stream in the given pieces, as an owner with a window would, and writes again what it read. */
function readAndWrite(bytes: Buffer, cuts: readonly number[], refuse: () => boolean = () => false) {
  const window = 65536;
  const outAt = window;
  const memory = new Uint8Array(window + bytes.length * 2 + 65536);
  const writer = new StreamWriter(memory, (to, from, length) => memory.copyWithin(to, from, from + length));
  const prologue: Buffer[] = [];
  const devices: Buffer[] = [];
  const log: string[] = [];
  const pages: { page: number; content: Buffer | undefined }[] = [];
  let section = 0;
  let open = false;
  const begin = (): void => {
    if (!open) writer.partStart(section);
    open = true;
  };
  const copy = (start: number, end: number): Buffer => Buffer.from(memory.slice(start, end));
  const sink: StreamSink = {
    prologue: (start, end) => prologue.push(copy(start, end)),
    layout: (setup) => {
      section = setup.ramSectionId;
      writer.layout(setup.blocks);
      writer.begin(outAt, memory.length);
      log.push(`layout ${setup.machineType}`);
    },
    page: (page, at) => {
      if (refuse()) return false;
      if (!log.includes("stopped")) begin();
      if (!log.includes("stopped")) writer.page(page, at);
      pages.push({ page, content: copy(at, at + 4096) });
      return true;
    },
    zeroPage: (page) => {
      if (refuse()) return false;
      if (!log.includes("stopped")) begin();
      if (!log.includes("stopped")) writer.zeroPage(page);
      pages.push({ page, content: undefined });
      return true;
    },
    partEnd: () => {
      begin();
      writer.partEnd(section);
      open = false;
      return !refuse();
    },
    stopped: () => log.push("stopped"),
    ramEnd: () => log.push("ramEnd"),
    device: (start, end) => devices.push(copy(start, end)),
    end: () => log.push("end"),
  };
  const reader = new StreamReader(memory, sink);
  let head = 0;
  let tail = 0;
  const feed = (piece: Buffer): void => {
    // moved to the start each time: the owner may do so
    memory.copyWithin(0, head, tail);
    tail -= head;
    head = 0;
    memory.set(piece, tail);
    tail += piece.length;
    do head = reader.consume(head, tail);
    while (reader.stopped);
  };
  let from = 0;
  for (const cut of [...cuts, bytes.length]) {
    for (; cut - from > 16384; from += 16384) feed(bytes.subarray(from, from + 16384));
    feed(bytes.subarray(from, cut));
    from = cut;
  }
  const parts = Buffer.from(memory.slice(outAt, writer.position));
  return { prologue: Buffer.concat(prologue), devices: Buffer.concat(devices), parts, pages, log, left: tail - head };
}

t.test("what the reader reads, the writer writes again, byte for byte", async () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1e9 }),
      fc.boolean(),
      fc.array(fc.nat(60000), { maxLength: 20 }),
      (seed, commands, cuts) => {
        const stream = fakeStream({ seed, commands, sections: 2, recordsPerSection: 4 });
        const sorted = cuts.map((cut) => cut % stream.bytes.length).sort((a, b) => a - b);
        const got = readAndWrite(stream.bytes, sorted);
        return (
          got.prologue.equals(stream.prologue) &&
          got.parts.equals(stream.parts) &&
          got.devices.equals(stream.devices) &&
          got.left === 0 &&
          got.log.join() === "layout pc-q35-8.1,stopped,ramEnd,end"
        );
      },
    ),
    { numRuns: 100 },
  );
});

t.test("a stream may be split at every byte", async (t) => {
  const options: FakeStreamOptions = { seed: 7, sections: 1, recordsPerSection: 2, deviceBytes: 40 };
  const stream = fakeStream(options);
  const whole = readAndWrite(stream.bytes, []);
  t.same(whole.pages, stream.pages);
  let wrong = 0;
  for (let cut = 0; cut <= stream.bytes.length; cut++) {
    const got = readAndWrite(stream.bytes, [cut]);
    if (!got.parts.equals(stream.parts) || !got.devices.equals(stream.devices) || got.log.at(-1) !== "end") wrong++;
  }
  t.equal(wrong, 0);
});

t.test("one byte at a time is enough", async (t) => {
  const stream = fakeStream({ seed: 3, sections: 1, recordsPerSection: 1, deviceBytes: 30 });
  const got = readAndWrite(
    stream.bytes,
    Array.from({ length: stream.bytes.length }, (_, i) => i),
  );
  t.ok(got.prologue.equals(stream.prologue));
  t.same(got.pages, stream.pages);
  t.equal(got.log.at(-1), "end");
});

t.test("a sink that refuses is offered the same page again, and loses none", async (t) => {
  const stream = fakeStream({ seed: 11 });
  let calls = 0;
  const got = readAndWrite(stream.bytes, [5000, 20000], () => calls++ % 3 === 1);
  t.same(got.pages, stream.pages);
  t.ok(got.parts.equals(stream.parts));
});

t.test("device state that looks like an end does not end the stream", async (t) => {
  const decoy = new StreamBytes().u8(0, 6).be32(20).bytes(Buffer.from('{"page_size":4096}  ')).done();
  const json = '{"configuration": 1}';
  const tail = new StreamBytes().u8(0, 6).be32(json.length).bytes(Buffer.from(json)).done();
  const stream = fakeStream({ seed: 5, sections: 0, recordsPerSection: 0, deviceBytes: 10 });
  const head = stream.bytes.subarray(0, stream.bytes.length - stream.devices.length);
  const bytes = Buffer.concat([head, Buffer.from("device"), decoy, Buffer.from("more"), tail]);
  for (let cut = head.length; cut <= bytes.length; cut++)
    t.equal(readAndWrite(bytes, [cut]).log.at(-1), "end", { skip: false });
});

const prefix = (): StreamBytes => new StreamBytes().be32(0x5145564d).be32(3).u8(7).be32(2).bytes(Buffer.from("pc"));
const ramStart = (bytes: StreamBytes): StreamBytes =>
  bytes
    .u8(1)
    .be32(2)
    .name("ram")
    .be32(0)
    .be32(4)
    .be64(8192 + 4)
    .name("pc.ram")
    .be64(8192)
    .be64(0x10)
    .u8(0x7e)
    .be32(2);

const refusals: [title: string, bytes: Buffer, code: string, message: RegExp][] = [
  ["no magic", Buffer.from("GET / HTTP/1.1\r\n\r\n"), "stream-invalid", /not a migration stream/],
  ["another version", new StreamBytes().be32(0x5145564d).be32(2).done(), "stream-unsupported", /version 2/],
  [
    "no configuration",
    new StreamBytes().be32(0x5145564d).be32(3).u8(1).be32(0).done(),
    "stream-unsupported",
    /send-configuration/,
  ],
  [
    "an absurd machine name",
    new StreamBytes().be32(0x5145564d).be32(3).u8(7).be32(0xffffffff).done(),
    "stream-invalid",
    /machine name/,
  ],
  [
    "another iterable section",
    prefix().u8(1).be32(3).name("dirty-bitmap").be32(0).be32(1).be64(0).done(),
    "stream-unsupported",
    /dirty-bitmap/,
  ],
  [
    "device state in the setup",
    prefix().u8(4).be32(3).name("virtio-mem").be32(0).be32(1).done(),
    "stream-unsupported",
    /virtio-mem/,
  ],
  ["post-copy", prefix().u8(8).be16(3).be16(16).bytes(Buffer.alloc(16)).done(), "stream-unsupported", /postcopyAdvise/],
  [
    "a capability in the configuration",
    prefix().u8(5).name("configuration/capabilities").be32(1).done(),
    "stream-unsupported",
    /capabilities/,
  ],
  [
    "blocks beyond the total",
    prefix()
      .u8(1)
      .be32(2)
      .name("ram")
      .be32(0)
      .be32(4)
      .be64(4096 + 4)
      .name("pc.ram")
      .be64(8192)
      .done(),
    "stream-unsupported",
    /pc\.ram/,
  ],
  [
    "huge pages",
    prefix()
      .u8(1)
      .be32(2)
      .name("ram")
      .be32(0)
      .be32(4)
      .be64(4096 + 4)
      .name("pc.ram")
      .be64(4096)
      .be64(2 << 20)
      .u8(0, 0, 0, 0, 0)
      .done(),
    "stream-unsupported",
    /0x200000/,
  ],
  ["XBZRLE", ramStart(prefix()).u8(2).be32(2).be64(0x40).name("pc.ram").done(), "stream-unsupported", /xbzrle/],
  ["multifd", ramStart(prefix()).u8(2).be32(2).be64(0x200).name("pc.ram").done(), "stream-unsupported", /multifd/],
  ["compression", ramStart(prefix()).u8(2).be32(2).be64(0x100).name("pc.ram").done(), "stream-unsupported", /compress/],
  [
    "a page outside its block",
    ramStart(prefix())
      .u8(2)
      .be32(2)
      .be64(8192 + 2)
      .name("pc.ram")
      .u8(0)
      .done(),
    "stream-invalid",
    /offset 8192/,
  ],
  [
    "a page of an unknown block",
    ramStart(prefix()).u8(2).be32(2).be64(2).name("pc.rom").u8(0).done(),
    "stream-invalid",
    /pc\.rom/,
  ],
  [
    "a page without a block",
    ramStart(prefix()).u8(2).be32(2).be64(0x22).u8(0).done(),
    "stream-invalid",
    /without a RAM block/,
  ],
  [
    "a page filled with ones",
    ramStart(prefix()).u8(2).be32(2).be64(2).name("pc.ram").u8(1).done(),
    "stream-unsupported",
    /filled with 1/,
  ],
  [
    "a foreign footer",
    ramStart(prefix()).u8(2).be32(2).be64(0x10).u8(0x7e).be32(9).done(),
    "stream-invalid",
    /footer of section 9/,
  ],
  ["no footer", ramStart(prefix()).u8(2).be32(2).be64(0x10).u8(0, 0, 0, 0, 0).done(), "stream-unsupported", /footer/],
  ["a part that did not start", prefix().u8(2).be32(2).be64(0x10).done(), "stream-invalid", /did not start/],
];
for (const [title, bytes, code, message] of refusals)
  t.test(`${title} is refused by name`, async (t) => {
    t.throws(() => readAndWrite(bytes, []), { code, message });
  });

t.test("hostile bytes give a named fault or wait for more, and nothing else", async () => {
  const good = fakeStream({ seed: 99, sections: 1, recordsPerSection: 2 }).bytes;
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 }), (changes) => {
      const bytes = Buffer.from(good);
      for (const [at, value] of changes) bytes[at] = value;
      try {
        readAndWrite(bytes, []);
        return true;
      } catch (thrown) {
        return thrown instanceof MigrationFault && thrown.code.startsWith("stream-");
      }
    }),
    { numRuns: 2000, interruptAfterTimeLimit: 20_000 },
  );
});

t.test("RAM's last section is written empty", async (t) => {
  t.equal(Buffer.from(encodeRamEnd(2)).toString("hex"), "030000000200000000000000107e00000002");
});
