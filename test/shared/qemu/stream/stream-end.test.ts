/** Tests `StreamEnd`: the end of QEMU's stream is found, and nothing that only looks like it. */
import fc from "fast-check";
import t from "tap";
import { StreamEnd } from "../../../../shared/qemu/stream/stream-end.ts";
import { StreamBytes } from "../../../support/fake-stream.ts";

const description = (text: string, length = text.length): Buffer =>
  new StreamBytes().u8(0, 6).be32(length).bytes(Buffer.from(text)).done();
const REAL = description('{"configuration": {"vmsd_name": "configuration"}, "page_size": 4096, "devices": []}');

/** Finds where the end is seen when the bytes come in pieces that end at the cuts; -1 where it is not seen. */
function endOf(bytes: Uint8Array, cuts: readonly number[]): number {
  const end = new StreamEnd();
  let from = 0;
  for (const cut of [...cuts, bytes.length]) {
    if (cut > from && end.push(bytes.subarray(from, cut))) return cut;
    from = cut;
  }
  return -1;
}

const lookalikes: Record<string, Uint8Array> = {
  "the mark without text": new StreamBytes().u8(0, 6).be32(20).bytes(Buffer.alloc(40)).done(),
  "a length beyond the end": description('{"page_size": 4096}', 1 << 20),
  "a length beyond every limit": description('{"page_size": 4096}', 0xffffffff),
  "a length of nothing": description('{"page_size": 4096}', 0),
  "text that is cut short": description('{"page_size": 4096}', 12),
  "an array": description("[4096, 4096, 4096]"),
  "text that goes on after its length": description('{"page_size": 4096}, and on'),
  "the mark's first two bytes": Buffer.from([0, 6]),
  "the mark and most of a length": Buffer.from([0, 6, 0, 0, 0]),
  zeros: Buffer.alloc(50),
  "heads one after the other": Buffer.concat(Array.from({ length: 50 }, () => description('{"a'))),
};

for (const [title, bytes] of Object.entries(lookalikes))
  t.test(`the end is found after ${title}, whatever the split`, async (t) => {
    const all = Buffer.concat([Buffer.from("state"), bytes, REAL]);
    let wrong = 0;
    for (let cut = 0; cut < all.length; cut++) if (endOf(all, [cut]) !== all.length) wrong++;
    t.equal(wrong, 0);
    const each = Array.from({ length: all.length - 1 }, (_, i) => i + 1);
    t.equal(endOf(all, each), all.length, "the bytes come one by one");
  });

t.test("device state that ends with the mark's own bytes does not hide the end", async (t) => {
  // with the state's 00 06 the mark is read as a length, and the bytes of the length are a brace and a quote
  const text = `{"page_size": 4096, "devices": "${"x".repeat(0x7b22 - 34)}"}`;
  t.equal(text.length, 0x7b22);
  const all = Buffer.concat([Buffer.from([1, 2, 0, 6]), description(text)]);
  for (let cut = 0; cut < 20; cut++) t.equal(endOf(all, [cut]), all.length);
});

t.test("the end of a read within a description is not the end of the stream", async (t) => {
  let early = 0;
  for (let cut = 0; cut < REAL.length; cut++) if (endOf(REAL.subarray(0, cut), []) >= 0) early++;
  t.equal(early, 0);
});

t.test("the end is found after any state, in any pieces", async () => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 30 }),
    fc.constantFrom<Uint8Array>(...Object.values(lookalikes)),
    fc.constant(Uint8Array.of(0, 6)),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), fc.array(fc.nat(3000), { maxLength: 12 }), (pieces, cuts) => {
      const all = Buffer.concat([...pieces, REAL]);
      const sorted = cuts.filter((cut) => cut < all.length).sort((a, b) => a - b);
      return endOf(all, sorted) === all.length;
    }),
    { numRuns: 3000, interruptAfterTimeLimit: 5000 },
  );
});

t.test("a candidate of 16 MiB is looked at once, in pieces of any size", async (t) => {
  const text = `{"page_size": 4096, "devices": "${"x".repeat((16 << 20) - 34)}"}`;
  const all = description(text);
  const end = new StreamEnd();
  let seen = false;
  for (let from = 0; from < all.length; from += 1000) seen = end.push(all.subarray(from, from + 1000));
  t.ok(seen);
  const beyond = description('{"page_size"', 17 << 20);
  t.equal(endOf(Buffer.concat([beyond, REAL]), []), beyond.length + REAL.length);
});
