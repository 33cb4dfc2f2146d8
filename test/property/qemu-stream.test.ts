/** Tests the reader of QEMU's stream with streams that are cut at every byte, and with streams that no QEMU writes. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import t from "tap";
import { StreamEnd } from "../../shared/qemu/stream/stream-end.ts";
import { StreamReader, type StreamSink } from "../../shared/qemu/stream/stream-reader.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { fakeStream, StreamBytes, streamHead, twoPageSetup } from "../support/fake-stream.ts";
import { FILE_MS, forAWhile, named, spoiled } from "../support/hostile.ts";
import { rewriteStream } from "../support/rewrite-stream.ts";

t.setTimeout(FILE_MS);

const FOLDER = join(packageRoot(), "test/vectors");
const heads = readdirSync(FOLDER)
  .filter((name) => /^pc-.*-head\.bin\.gz$/.test(name))
  .map((name) => gunzipSync(readFileSync(join(FOLDER, name))));
const { bytes: made, devices } = fakeStream({ seed: 5, sections: 2, recordsPerSection: 3, deviceBytes: 60 });

t.test("a captured stream is read the same wherever its set-up or its first pages are cut", async (t) => {
  t.equal(heads.length, 2);
  for (const head of heads) {
    const whole = rewriteStream(head);
    let wrong = 0;
    // the set-up has some 400 bytes; after it every seventh byte is tried, since all pages are alike
    for (let cut = 0; cut <= head.length; cut += cut < 600 ? 1 : 7) {
      const got = rewriteStream(head, [cut]);
      if (!got.bytes.equals(whole.bytes) || got.log.join() !== whole.log.join() || got.left !== whole.left) wrong++;
    }
    t.equal(wrong, 0);
  }
});

t.test(
  "a spoiled stream ends in a fault of the stream or in waiting for more, in whatever pieces it comes",
  async () => {
    const cuts = fc.array(fc.nat(13_000), { maxLength: 4 });
    forAWhile(fc.tuple(spoiled([made, made, twoPageSetup().done(), ...heads]), cuts), ([bytes, where]) => {
      const sorted = where.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b);
      named(["stream-invalid", "stream-unsupported"], () => rewriteStream(bytes, sorted));
    });
  },
);

t.test("a spoiled stream without device state ends in the same way wherever it is cut", async () => {
  const codes = ["stream-invalid", "stream-unsupported"] as const;
  // the device state is left out: if it held a whole description and a piece ended with that, this would be taken for
  // the end (stream-end.ts)
  const noDevices = made.subarray(0, made.length - devices.length);
  forAWhile(fc.tuple(spoiled([noDevices]), fc.nat(9000)), ([bytes, cut]) => {
    const whole = named(codes, () => rewriteStream(bytes));
    const pieces = named(codes, () => rewriteStream(bytes, [cut % (bytes.length + 1)]));
    if (whole !== pieces) throw new Error(`${whole} in one piece, ${pieces} in two`);
  });
});

t.test("after every good beginning, random bytes are refused or more are waited for", async () => {
  const beginnings = [new StreamBytes(), new StreamBytes().be32(0x5145564d).be32(3), streamHead(), twoPageSetup()].map(
    (one) => one.done(),
  );
  forAWhile(
    fc.tuple(fc.constantFrom(...beginnings), fc.uint8Array({ maxLength: 200 })),
    ([beginning, bytes]) =>
      void named(["stream-invalid", "stream-unsupported"], () => rewriteStream(Buffer.concat([beginning, bytes]))),
  );
});

t.test("the reader refuses blocks and sizes that are only claimed, and allocates nothing for them", async (t) => {
  const sink: StreamSink = {
    prologue: () => undefined,
    layout: () => undefined,
    page: () => true,
    zeroPage: () => true,
    partEnd: () => true,
    stopped: () => undefined,
    ramEnd: () => undefined,
    device: () => undefined,
    end: () => undefined,
  };
  const claim = (total: number): StreamBytes =>
    streamHead()
      .u8(1)
      .be32(2)
      .name("ram")
      .be32(0)
      .be32(4)
      .be64(total + 4);
  const consume = (stream: StreamBytes): void => {
    const bytes = stream.done();
    new StreamReader(bytes, sink).consume(0, bytes.length);
  };
  t.throws(() => consume(claim(2 ** 45)), { code: "stream-unsupported", message: /35184372088832 bytes of memory/ });
  t.throws(() => consume(claim(2 ** 53)), { code: "stream-invalid" });
  const many = claim(2 ** 44);
  for (let i = 0; i <= 4096; i++) many.name(`b${i}`).be64(4096);
  t.throws(() => consume(many), { code: "stream-unsupported", message: /more than 4096 RAM blocks/ });
  t.throws(() => consume(claim(8192).name("a").be64(12_288)), {
    code: "stream-unsupported",
    message: /12288 bytes with 8192/,
  });
  t.throws(() => consume(claim(8192).name("a").be64(4096).name("a").be64(4096)), { message: /RAM block a twice/ });
});

t.test("device state full of false heads takes time in proportion to its length", async (t) => {
  const head = new StreamBytes().u8(0, 6).be32(3).bytes(Buffer.from('{"a')).done();
  const state = Buffer.concat(new Array(400_000).fill(head));
  const startMs = performance.now();
  t.notOk(new StreamEnd().push(state));
  // an earlier version copied all that follows each head: 700 GB, which took minutes
  t.ok(performance.now() - startMs < 30_000);
  const claims = new StreamBytes().u8(0, 6).be32(0xffffffff).bytes(Buffer.from('{"a')).done();
  t.notOk(new StreamEnd().push(claims));
});

t.test("the end of the stream is found after any device state, in pieces of any length", async () => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 12 }),
    fc.constantFrom<number[]>(
      [0],
      [0, 6],
      [0, 6, 0],
      [0, 6, 0, 0, 0, 3, 123, 34, 97],
      [0, 6, 0, 0, 0, 9, 123, 34, 97, 34],
    ),
  );
  const description = '{"page_size": 4096}';
  const end = new StreamBytes().u8(0, 6).be32(description.length).bytes(Buffer.from(description)).done();
  forAWhile(fc.tuple(fc.array(piece, { maxLength: 12 }), fc.array(fc.nat(200), { maxLength: 6 })), ([pieces, cuts]) => {
    // a byte that is no text ends any candidate before the real end
    const bytes = Buffer.concat([...pieces.map((one) => Buffer.from(one)), Buffer.of(1), end]);
    const sorted = cuts.map((cut) => cut % bytes.length).sort((a, b) => a - b);
    const finder = new StreamEnd();
    let from = 0;
    let found = false;
    for (const cut of [...sorted, bytes.length]) {
      found = finder.push(bytes.subarray(from, cut));
      from = cut;
    }
    if (!found) throw new Error(`not found in ${bytes.toString("hex")} cut at ${sorted}`);
  });
});
