/** Tests `PostcopyPages`: which pages QEMU misses, and which pages it may get. */
import fc from "fast-check";
import t from "tap";
import { PostcopyPages } from "../../../agent-destination/replay/postcopy-pages.ts";
import { encodeDiscards } from "../../../shared/codec/discard-frame.ts";
import { PageSet } from "../../../shared/page/page-set.ts";
import type { DestinationMessage } from "../../../shared/protocol/stream-messages.ts";
import {
  encodePong,
  encodeReceivedPages,
  encodeResumeAck,
  encodeShut,
  PageRequests,
} from "../../../shared/qemu/return-path/return-path.ts";
import { encodePackageHead } from "../../../shared/qemu/stream/command-encoder.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";

const blocks = [{ name: "pc.ram", byteLength: 64 * 4096, pageSize: 4096 }];
const refused = { code: "peer-invalid" };

function setUp() {
  const sent: DestinationMessage[] = [];
  const pages = new PostcopyPages({
    blocks,
    pageCount: 64,
    clock: systemClock,
    send: (message) => void sent.push(message),
  });
  return { pages, sent };
}

const discards = (...stale: number[]): Uint8Array => {
  const pages = new PageSet(64);
  for (const page of stale) pages.add(page);
  return encodeDiscards(pages)[0]!;
};
const packaged = (length: number, body = new Uint8Array(length)): Uint8Array => {
  const bytes = new Uint8Array(4 + body.length);
  new DataView(bytes.buffer).setUint32(0, length, true);
  bytes.set(body, 4);
  return bytes;
};

/** Makes post-copy after its package: every page came, and then these pages became stale. */
function switched(...stale: number[]) {
  const it = setUp();
  for (let page = 0; page < 64; page++) it.pages.placed(page, false);
  it.pages.discards(discards(...stale));
  it.pages.package(packaged(10));
  return it;
}

t.test("after the package each stale page comes once, and then the end", async (t) => {
  const { pages } = switched(3, 4, 60);
  t.ok(pages.isActive);
  t.throws(() => pages.checkEnd(), { ...refused, message: /3 pages missing/ });
  for (const page of [60, 3, 4]) pages.placed(page, false);
  pages.checkEnd();
});

t.test("a page that is there already is refused before QEMU gets it", async (t) => {
  const { pages } = switched(3);
  t.throws(() => pages.placed(5, false), refused);
  pages.placed(3, false);
  t.throws(() => pages.placed(3, false), { ...refused, message: /second time/ });
});

t.test("before the package a page may come again and again, but a delta only where there is content", async (t) => {
  const { pages } = setUp();
  pages.placed(1, false);
  pages.placed(1, false);
  pages.placed(1, true);
  t.throws(() => pages.placed(2, true), refused);
});

t.test("a package is as long as it says, and neither discards nor another package follow it", async (t) => {
  const { pages } = setUp();
  t.throws(() => pages.package(packaged(0)), refused);
  t.throws(() => setUp().pages.package(packaged(2 ** 31, new Uint8Array(4))), refused);
  t.throws(() => setUp().pages.package(packaged(3, new Uint8Array(4))), refused);
  t.equal(pages.package(packaged(10, new Uint8Array(4))).length, 9 + 4, "the command of the package goes ahead of it");
  t.notOk(pages.isActive);
  t.throws(() => pages.discards(discards(1)), refused);
  t.equal(pages.package(new Uint8Array(6)).length, 6);
  t.ok(pages.isActive);
  t.throws(() => pages.package(packaged(1)), refused);
});

t.test("what QEMU asks and answers goes to the source, and SHUT is the end", async (t) => {
  const { pages, sent } = switched(8, 9);
  const requests = new PageRequests(blocks);
  requests.add(8, 2);
  pages.read(requests.take());
  pages.read(encodePong(3));
  pages.read(encodeShut(0));
  t.same(sent, [
    { kind: "pageRequest", firstPage: 8, pageCount: 2 },
    { kind: "pong", value: 3 },
  ]);
  t.equal(await pages.done.promise, 0);
});

t.test("a resumed post-copy misses the pages that QEMU reports, and repeats what the guest waits for", async (t) => {
  const { pages, sent } = setUp();
  const received = new Uint8Array(8).fill(0xff);
  received[1] = 0b1111_0101;
  pages.read(encodeReceivedPages(blocks[0]!, received));
  pages.read(encodeResumeAck());
  await pages.resumed.promise;
  t.equal(pages.missingPages, 2);
  const requests = new PageRequests(blocks);
  requests.add(9, 1);
  pages.read(requests.take());
  pages.tellMissing();
  const [request, missing, again] = sent;
  t.same(request, { kind: "pageRequest", firstPage: 9, pageCount: 1 });
  t.match(missing, { kind: "missing", firstPage: 0, pageCount: 64, last: true });
  t.same(again, request);
  if (missing?.kind !== "missing") throw new Error("it was not told");
  t.same([...missing.bits], [0, 0b0000_1010, 0, 0, 0, 0, 0, 0]);
  pages.placed(9, false);
  t.throws(() => pages.placed(8, false), refused);
});

t.test("a package comes in pieces of any length, with its command ahead of the first piece", async () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 100 }), fc.array(fc.nat(100)), (device, cuts) => {
      const { pages } = setUp();
      const whole = Buffer.concat([Buffer.of(device.length, 0, 0, 0), device]);
      const ends = [...new Set([...cuts.filter((cut) => cut >= 4 && cut < whole.length), whole.length])];
      const out: Uint8Array[] = [];
      let from = 0;
      for (const end of ends.sort((a, b) => a - b)) {
        if (pages.isActive) return false;
        out.push(pages.package(whole.subarray(from, end)));
        from = end;
      }
      return pages.isActive && Buffer.concat(out).equals(Buffer.concat([encodePackageHead(device.length), device]));
    }),
  );
});

t.test("the pages that a large guest misses are told in pieces, of which the last is marked", async (t) => {
  const pageCount = 300_000;
  const told: unknown[] = [];
  const pages = new PostcopyPages({
    blocks: [{ name: "pc.ram", byteLength: pageCount * 4096, pageSize: 4096 }],
    pageCount,
    clock: systemClock,
    send: (message) => {
      if (message.kind === "missing") told.push([message.firstPage, message.pageCount, message.last]);
    },
  });
  pages.tellMissing();
  t.same(told, [
    [0, 2 ** 18, false],
    [2 ** 18, pageCount - 2 ** 18, true],
  ]);
});
