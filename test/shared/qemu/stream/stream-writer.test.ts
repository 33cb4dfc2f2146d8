/** Tests `StreamWriter`: the RAM sections that an agent writes to the destination's QEMU. */
import t from "tap";
import { encodeRamEnd, StreamWriter } from "../../../../shared/qemu/stream/stream-writer.ts";
import { StreamBytes } from "../../../support/fake-stream.ts";

const OUT = 16384;
const layout = [
  { name: "pc.ram", byteLength: 6 * 2 ** 30 },
  { name: "pc.bios", byteLength: 8192 },
];
const RAM_PAGES = 6 * 2 ** 18;

/** Makes a writer at OUT, whose memory has a page of ones at 4096. */
function begin(): { writer: StreamWriter; memory: Uint8Array; written: () => Buffer } {
  const memory = new Uint8Array(65536).fill(1, 4096, 8192);
  const writer = new StreamWriter(memory, (to, from, length) => memory.copyWithin(to, from, from + length));
  writer.layout(layout);
  writer.begin(OUT, memory.length);
  return { writer, memory, written: () => Buffer.from(memory.slice(OUT, writer.position)) };
}

t.test("a record names its block only where the record before was of another, also across sections", async (t) => {
  const { writer, written } = begin();
  writer.partStart(1);
  writer.zeroPage(0);
  writer.zeroPage(1);
  writer.partEnd(1);
  writer.partStart(1);
  writer.zeroPage(2);
  writer.zeroPage(RAM_PAGES + 1);
  writer.zeroPage(0);
  writer.partEnd(1);
  const expected = new StreamBytes().u8(2).be32(1).be64(0x2).name("pc.ram").u8(0).be64(0x1022).u8(0);
  expected.be64(0x10).u8(0x7e).be32(1).u8(2).be32(1).be64(0x2022).u8(0);
  expected.be64(0x1002).name("pc.bios").u8(0).be64(0x2).name("pc.ram").u8(0).be64(0x10).u8(0x7e).be32(1);
  t.equal(written().toString("hex"), expected.done().toString("hex"));
});

t.test("a page beyond 4 GiB keeps its offset", async (t) => {
  const { writer, written } = begin();
  writer.page(2 ** 20 + 5, 4096);
  const expected = new StreamBytes().be64(2 ** 32 + 5 * 4096 + 8).name("pc.ram");
  t.ok(written().equals(expected.bytes(Buffer.alloc(4096, 1)).done()));
});

t.test("a delta is an XBZRLE record with its length", async (t) => {
  const { writer, memory, written } = begin();
  memory.set([9, 2, 0xaa, 0xbb], 100);
  writer.delta(3, 100, 4);
  t.equal(written().toString("hex"), "00000000000030400670632e72616d01000409 02aabb".replace(" ", ""));
});

t.test("a page of no block is a mistake of the caller", async (t) => {
  const { writer } = begin();
  t.throws(() => writer.zeroPage(RAM_PAGES + 2), RangeError);
});

t.test("the room is what is left of the window", async (t) => {
  const { writer } = begin();
  writer.begin(OUT, OUT + 100);
  t.ok(writer.room(100));
  writer.verbatim(4096, 60);
  t.notOk(writer.room(41));
  t.ok(writer.room(40));
});

t.test("RAM's last section is written empty", async (t) => {
  t.equal(Buffer.from(encodeRamEnd(2)).toString("hex"), "030000000200000000000000107e00000002");
});
