/** Tests `ReturnPathReader`: what QEMU writes is read in any pieces, and anything else is refused. */
import t from "tap";
import {
  encodePong,
  encodeShut,
  encodeSwitchoverAck,
  PageRequests,
} from "../../../../shared/qemu/return-path/return-path.ts";
import { ReturnPathReader } from "../../../../shared/qemu/return-path/return-path-reader.ts";
import { StreamBytes } from "../../../support/fake-stream.ts";
import { RETURN_PATH_BLOCKS, ReturnPathLog, receivedBitmap } from "../../../support/return-path-log.ts";

/** Reads these bytes in pieces that end at the cuts. @returns what the reader tells */
function told(bytes: Uint8Array, cuts: readonly number[] = []): readonly string[] {
  const sink = new ReturnPathLog();
  const reader = new ReturnPathReader(RETURN_PATH_BLOCKS, sink);
  let from = 0;
  for (const cut of [...cuts, bytes.length]) {
    reader.push(bytes.subarray(from, cut));
    from = cut;
  }
  return sink.log;
}

const message = (type: number, length: number): StreamBytes => new StreamBytes().be16(type).be16(length);

/** One message of each kind, with a bitmap of a block whose last word is not full. */
function everything(): Buffer {
  const requests = new PageRequests(RETURN_PATH_BLOCKS);
  requests.add(3, 1);
  requests.add(4, 5);
  requests.add(100, 2);
  requests.add(0, 1);
  const bits = Buffer.alloc(16);
  bits[0] = 0b101;
  bits[12] = 0b1000;
  return Buffer.concat([
    encodePong(3),
    encodeSwitchoverAck(),
    requests.take(),
    receivedBitmap("pc.ram", bits),
    message(4, 12).be64(8192).be32(4096).done(),
    message(6, 4).be32(1).done(),
    encodeShut(7),
  ]);
}
const EVERYTHING = [
  "pong 3",
  "switchoverAck",
  "request 3+1",
  "request 4+5",
  "request 100+2",
  "request 0+1",
  "received 0",
  "received 2",
  "received 99",
  // the request names no block, so it is for the block that a request has named last
  "request 2+1",
  "resumeAck",
  "shut 7",
];

t.test("each message is told, and requests are told as pages", async (t) => {
  t.strictSame(told(everything()), EVERYTHING);
});

t.test("the return path may be split at every byte", async (t) => {
  const bytes = everything();
  for (let cut = 0; cut <= bytes.length; cut++) t.strictSame(told(bytes, [cut]), EVERYTHING);
  t.strictSame(
    told(
      bytes,
      Array.from({ length: bytes.length }, (_, i) => i),
    ),
    EVERYTHING,
  );
});

t.test("a message that QEMU does not write is refused with the reason", async (t) => {
  const request = (start: number, bytes: number, name = "pc.ram"): StreamBytes =>
    message(3, 13 + name.length)
      .be64(start)
      .be32(bytes)
      .name(name);
  const bitmap = receivedBitmap("pc.ram", Buffer.alloc(16));
  const spoilt = Buffer.from(bitmap);
  spoilt[spoilt.length - 1]! ^= 1;
  const refused: readonly [bytes: Uint8Array, message: RegExp][] = [
    [message(0, 0).done(), /a message of type 0 /],
    [message(8, 4).done(), /a message of type 8 /],
    [message(0xffff, 0xffff).done(), /type 65535/],
    [message(1, 5).done(), /type 1 with 5 bytes/],
    [message(2, 0).done(), /type 2 with 0 bytes/],
    [message(3, 12).done(), /type 3 with 12 bytes/],
    [message(3, 269).done(), /type 3 with 269 bytes/],
    [message(4, 13).done(), /type 4 with 13 bytes/],
    [message(5, 0).done(), /type 5 with 0 bytes/],
    [message(5, 257).done(), /type 5 with 257 bytes/],
    [message(7, 1).done(), /type 7 with 1 bytes/],
    [message(4, 12).be64(0).be32(4096).done(), /request for pages without a RAM block/],
    [request(0, 4096, "pc.rom").done(), /RAM block pc\.rom, which was not listed/],
    [message(3, 19).be64(0).be32(4096).u8(200).bytes(Buffer.from("pc.ram")).done(), /name of 200 bytes/],
    [request(0, 0).done(), /request for 0 bytes at offset 0/],
    [request(1, 4096).done(), /4096 bytes at offset 1 /],
    [request(0, 4097).done(), /4097 bytes/],
    [request(0, 1025 * 4096).done(), /request for 4198400 bytes at once/],
    [request(0, 0xfffff000).done(), /request for 4294963200 bytes at once/],
    [request(100 * 4096, 4096).done(), /offset 409600 of RAM block pc\.ram, which has 409600/],
    [request(98 * 4096, 3 * 4096).done(), /12288 bytes at offset 401408/],
    [message(3, 19).be32(0xffffffff).be32(0xfffff000).be32(4096).name("pc.ram").done(), /offset 18446744073709/],
    [message(6, 4).be32(0).done(), /RESUME_ACK with 0/],
    [message(5, 7).name("pc.rom").done(), /bitmap of RAM block pc\.rom/],
    [message(5, 7).name("pc.ram").be64(8).done(), /bitmap of 8 bytes for 100 pages/],
    [message(5, 7).name("pc.ram").be32(0xffffffff).be32(0xffffffff).done(), /for 100 pages/],
    [spoilt, /without its end mark/],
    [Buffer.concat([encodeShut(0), Buffer.of(0)]), /bytes after its end/],
  ];
  for (const [bytes, text] of refused) {
    t.throws(() => told(bytes), { name: "MigrationFault", code: "stream-invalid", message: text });
    t.throws(() => told(bytes, [3]), { message: text });
  }
});

t.test("reading requests makes no object for a request", async (t) => {
  const requests = new PageRequests(RETURN_PATH_BLOCKS);
  for (let i = 0; i < 20_000; i++) requests.add(i % 100, 1);
  const bytes = requests.take();
  let count = 0;
  const none = (): void => undefined;
  const others = { pong: none, shut: none, switchoverAck: none, resumeAck: none, receivedPages: none };
  const reader = new ReturnPathReader(RETURN_PATH_BLOCKS, { ...others, requestPages: () => void count++ });
  for (let i = 0; i < 20; i++) reader.push(bytes);
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < 20; i++) reader.push(bytes);
  t.equal(count, 800_000);
  t.ok(process.memoryUsage().heapUsed - before < 1e6);
});
