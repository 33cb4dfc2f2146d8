/** Tests the set-up of QEMU's stream: the header, the configuration and the start of RAM. */
import t, { type Test } from "tap";
import { type RamSetup, StreamReader, type StreamSink } from "../../../../shared/qemu/stream/stream-reader.ts";
import type { StreamLimits } from "../../../../shared/qemu/stream/stream-setup.ts";
import { StreamBytes, streamHead } from "../../../support/fake-stream.ts";

type Refused = readonly [title: string, bytes: StreamBytes, code: string, message: RegExp];
type Blocks = readonly (readonly [name: string, byteLength: number])[];

/** Writes the head of RAM's section with this total, and the list of blocks. */
function ramStart(bytes: StreamBytes, totalBytes: number, blocks: Blocks, id = 2): StreamBytes {
  bytes.u8(1).be32(id).name("ram").be32(0).be32(4);
  bytes.be64(totalBytes + 4);
  for (const [name, byteLength] of blocks) bytes.name(name).be64(byteLength);
  return bytes;
}

const raw = (): StreamBytes => new StreamBytes().be32(0x5145564d);
const section = (id: string, instance: number, version: number): StreamBytes =>
  streamHead().u8(1).be32(2).name(id).be32(instance).be32(version).be64(8196);

/** Reads the stream whole and byte by byte, which must come to the same. */
function read(t: Test, stream: StreamBytes, limits: StreamLimits = {}): { setup: RamSetup; prologue: string } {
  const bytes = stream.done();
  const results = [bytes.length, 1].map((step) => {
    const memory = new Uint8Array(bytes.length);
    let setup: RamSetup | undefined;
    let prologue = "";
    const sink: Partial<StreamSink> = {
      prologue: (start, end) => {
        prologue += Buffer.from(memory.slice(start, end)).toString("hex");
      },
      layout: (got) => {
        setup = got;
      },
    };
    const reader = new StreamReader(memory, sink as StreamSink, limits);
    let head = 0;
    for (let tail = step; tail <= bytes.length; tail += step) {
      memory.set(bytes.subarray(tail - step, tail), tail - step);
      head = reader.consume(head, tail);
    }
    t.equal(head, bytes.length);
    t.equal(reader.position, bytes.length);
    return { setup, prologue };
  });
  t.strictSame(results[1], results[0]);
  if (results[0]?.setup === undefined) throw new Error("no layout");
  return { setup: results[0].setup, prologue: results[0].prologue };
}

t.test("machine, section and blocks are told in the order of the stream", async (t) => {
  const blocks = [
    ["pc.ram", 1 << 20],
    ["0000:00:02.0/vga.vram", 16384],
    ["empty", 0],
    ["/rom@etc/acpi/tables", 4096],
  ] as const;
  const stream = ramStart(streamHead("pc-i440fx-10.0"), (1 << 20) + 20480, blocks, 1);
  const { setup } = read(t, stream.be64(0x10).u8(0x7e).be32(1));
  t.strictSame(setup, {
    machineType: "pc-i440fx-10.0",
    ramSectionId: 1,
    blocks: blocks.map(([name, byteLength]) => ({ name, byteLength, pageSize: 4096 })),
  });
});

t.test("the number of the section is the one that QEMU gives it, which may be 0", async (t) => {
  for (const id of [0, 7, 0xffffffff]) {
    const { setup } = read(
      t,
      ramStart(streamHead(), 4096, [["pc.ram", 4096]], id)
        .be64(0x10)
        .u8(0x7e)
        .be32(id),
    );
    t.equal(setup.ramSectionId, id);
  }
});

t.test("the prologue has the uuid, and lacks the commands wherever they stand", async (t) => {
  const uuid = new StreamBytes().u8(5).name("configuration/uuid").be32(1).bytes(Buffer.alloc(16, 7)).done();
  const start = ramStart(new StreamBytes(), 4096, [["pc.ram", 4096]])
    .be64(0x10)
    .u8(0x7e)
    .be32(2)
    .done();
  const commands = new StreamBytes().u8(8).be16(1).be16(0).u8(8).be16(2).be16(4).be32(1).done();
  const plain = streamHead().bytes(uuid).bytes(start).done().toString("hex");
  t.equal(read(t, streamHead().bytes(uuid).bytes(commands).bytes(start)).prologue, plain);
  t.equal(
    read(t, streamHead().bytes(commands).bytes(uuid).bytes(commands).bytes(start).bytes(commands)).prologue,
    plain,
  );
});

const refused: readonly Refused[] = [
  ["no magic", new StreamBytes().bytes(Buffer.from("GET / HTTP/1.1\r\n")), "stream-invalid", /not a migration stream/],
  ["another version", raw().be32(2), "stream-unsupported", /version 2 of the stream.*at byte 0/],
  ["no configuration", raw().be32(3).u8(1).be32(0), "stream-unsupported", /send-configuration.*at byte 8/],
  ["an absurd machine name", raw().be32(3).u8(7).be32(0xffffffff), "stream-invalid", /machine name of 4294967295/],
  ["an empty machine name", raw().be32(3).u8(7).be32(0), "stream-invalid", /machine name of 0/],
  ["dirty bitmaps", section("dirty-bitmap", 0, 1), "stream-unsupported", /section dirty-bitmap/],
  ["vfio", section("0000:00:05.0/vfio", 0, 1), "stream-unsupported", /section 0000:00:05.0\/vfio/],
  ["another version of RAM", section("ram", 0, 5), "stream-unsupported", /version 5 of section ram/],
  ["another instance of RAM", section("ram", 1, 4), "stream-invalid", /instance 1/],
  ["device state in the set-up", streamHead().u8(4).be32(3).name("virtio-mem"), "stream-unsupported", /virtio-mem/],
  ["an unknown section", streamHead().u8(0x55), "stream-invalid", /section of type 85/],
  ["an end before RAM", streamHead().u8(0), "stream-invalid", /section of type 0/],
  ["a part that did not start", streamHead().u8(2).be32(2).be64(0x10), "stream-invalid", /did not start/],
  ["a part of no section", streamHead().u8(3).be32(0xffffffff), "stream-invalid", /did not start/],
  ["post-copy", streamHead().u8(8).be16(3).be16(16), "stream-unsupported", /command postcopyAdvise/],
  ["a package", streamHead().u8(8).be16(7).be16(4), "stream-unsupported", /command packaged/],
  ["an unknown command", streamHead().u8(8).be16(99).be16(0), "stream-unsupported", /command number 99/],
  ["a ping of the wrong length", streamHead().u8(8).be16(2).be16(65535), "stream-invalid", /ping of 65535 bytes/],
  [
    "capabilities in the configuration",
    streamHead().u8(5).name("configuration/capabilities").be32(1),
    "stream-unsupported",
    /x-ignore-shared or mapped-ram/,
  ],
  [
    "another target's page size",
    streamHead().u8(5).name("configuration/target-page-bits"),
    "stream-unsupported",
    /target-page-bits/,
  ],
  ["blocks beyond the total", ramStart(streamHead(), 4096, [["pc.ram", 8192]]), "stream-unsupported", /block pc\.ram/],
  ["a block of odd length", ramStart(streamHead(), 8192, [["pc.ram", 4097]]), "stream-unsupported", /4097 bytes/],
  [
    "an absurd block",
    ramStart(streamHead(), 4096, [])
      .name("pc.ram")
      .be64(2 ** 60),
    "stream-invalid",
    /as a length/,
  ],
  [
    "a block twice",
    ramStart(streamHead(), 8192, [
      ["pc.ram", 4096],
      ["pc.ram", 4096],
    ]),
    "stream-invalid",
    /twice/,
  ],
  [
    "huge pages, whose size follows the length",
    ramStart(streamHead(), 4096, [["pc.ram", 4096]])
      .be64(2 << 20)
      .u8(0, 0, 0, 0, 0),
    "stream-unsupported",
    /0x200000/,
  ],
  ["an absurd total", ramStart(streamHead(), 2 ** 45, []), "stream-unsupported", /more than 17592186044416/],
  [
    "no size of RAM",
    streamHead().u8(1).be32(2).name("ram").be32(0).be32(4).be64(4096),
    "stream-invalid",
    /in place of the size/,
  ],
  [
    "a foreign footer",
    ramStart(streamHead(), 4096, [["pc.ram", 4096]])
      .be64(0x10)
      .u8(0x7e)
      .be32(9),
    "stream-invalid",
    /footer of section 9/,
  ],
  [
    "no footer",
    ramStart(streamHead(), 4096, [["pc.ram", 4096]])
      .be64(0x10)
      .u8(2)
      .be32(2),
    "stream-unsupported",
    /send-section-footer/,
  ],
  [
    "a second start of RAM",
    ramStart(
      ramStart(streamHead(), 4096, [["pc.ram", 4096]])
        .be64(0x10)
        .u8(0x7e)
        .be32(2),
      4096,
      [],
    ),
    "stream-invalid",
    /second start/,
  ],
];
for (const [title, bytes, code, message] of refused)
  t.test(`${title} is refused by name`, async (t) => {
    t.throws(() => read(t, bytes), { name: "MigrationFault", code, message });
  });

t.test("a caller may lower the limits", async (t) => {
  const two = (): StreamBytes =>
    ramStart(streamHead(), 8192, [
      ["a", 4096],
      ["b", 4096],
    ]);
  t.throws(() => read(t, two(), { blocksMax: 1 }), { code: "stream-unsupported", message: /more than 1 RAM blocks/ });
  t.throws(() => read(t, two(), { ramBytesMax: 4096 }), {
    code: "stream-unsupported",
    message: /8192 bytes of memory/,
  });
});
