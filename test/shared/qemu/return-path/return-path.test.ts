/** Tests the messages that an agent writes on a return path. */
import t from "tap";
import {
  encodePong,
  encodeReceivedPages,
  encodeResumeAck,
  encodeShut,
  encodeSwitchoverAck,
  PageRequests,
} from "../../../../shared/qemu/return-path/return-path.ts";
import { receivedBitmap } from "../../../support/return-path-log.ts";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const BLOCKS = [
  { name: "pc.ram", byteLength: 6 * 2 ** 30 },
  { name: "pc.bios", byteLength: 8192 },
];
const RAM_PAGES = 6 * 2 ** 18;

t.test("a message has its type, its length and its payload", async (t) => {
  t.equal(hex(encodeShut(0)), "0001000400000000");
  t.equal(hex(encodeShut(1)), "0001000400000001");
  t.equal(hex(encodePong(0xdeadbeef)), "00020004deadbeef");
  t.equal(hex(encodeSwitchoverAck()), "00070000");
  t.equal(hex(encodeResumeAck()), "0006000400000001");
});

t.test("the pages that a block has are told as a bitmap, padded to eight bytes, and an end mark", async (t) => {
  const block = { name: "pc.ram", byteLength: 66 * 4096 };
  const bits = Uint8Array.of(1, 2, 4, 8, 16, 32, 64, 128, 3);
  const padded = Buffer.concat([bits, Buffer.alloc(7)]);
  t.equal(hex(encodeReceivedPages(block, bits)), hex(receivedBitmap("pc.ram", padded)));
  t.equal(
    hex(encodeReceivedPages(block, Buffer.concat([bits, Buffer.of(0xff)]))),
    hex(receivedBitmap("pc.ram", padded)),
    "bits beyond the pages are left out",
  );
  t.equal(
    hex(encodeReceivedPages({ name: "none", byteLength: 0 }, bits)),
    hex(receivedBitmap("none", Buffer.alloc(0))),
  );
  t.throws(() => encodeReceivedPages(block, bits.subarray(1)), RangeError);
});

t.test("a request names its block only where the request before was for another, also after take()", async (t) => {
  const requests = new PageRequests(BLOCKS);
  requests.add(3, 1);
  requests.add(2 ** 20, 2);
  t.notOk(requests.isEmpty);
  t.equal(
    hex(requests.take()),
    "00030013" + "0000000000003000" + "00001000" + "06" + "70632e72616d" + "0004000c" + "0000000100000000" + "00002000",
  );
  t.ok(requests.isEmpty);
  t.equal(requests.take().length, 0);
  requests.add(4, 1);
  requests.add(RAM_PAGES, 2);
  requests.add(0, 1);
  t.equal(
    hex(requests.take()),
    "0004000c000000000000400000001000" +
      ("00030014" + "0000000000000000" + "00002000" + "07" + "70632e62696f73") +
      ("00030013" + "0000000000000000" + "00001000" + "06" + "70632e72616d"),
  );
});

t.test("pages that one request cannot name become several requests", async (t) => {
  const requests = new PageRequests(BLOCKS);
  requests.add(0, RAM_PAGES + 1);
  t.equal(
    hex(requests.take()),
    "00030013" +
      "0000000000000000" +
      "fffff000" +
      "06" +
      "70632e72616d" +
      ("0004000c" + "00000000fffff000" + "80001000") +
      ("00030014" + "0000000000000000" + "00001000" + "07" + "70632e62696f73"),
  );
  requests.add(RAM_PAGES - 1, 2);
  t.equal(requests.take().length, 23 + 24);
});

t.test("any number of requests is gathered, and pages of no block are a mistake of the caller", async (t) => {
  const requests = new PageRequests(BLOCKS);
  for (let i = 0; i < 10_000; i++) requests.add(i, 1);
  t.equal(requests.take().length, 10_000 * 16 + 7);
  t.throws(() => requests.add(RAM_PAGES + 2, 1), RangeError);
});
