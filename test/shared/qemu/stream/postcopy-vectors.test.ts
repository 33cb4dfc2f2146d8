/** Tests the reader and the writer with post-copy streams that real QEMUs wrote (test/vectors). */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import t from "tap";
import { packageRoot } from "../../../../shared/runtime/package-root.ts";
import type { VectorFacts } from "../../../support/capture-stream.ts";
import { type RewrittenPostcopy, rewritePostcopy } from "../../../support/fake-postcopy.ts";

const FOLDER = join(packageRoot(), "test/vectors");
const HIGH_START = 0x100000;
const LOW_END = 0xa0000;
/** The pages that the guest changes without end. */
const CHANGING = Array.from({ length: 16 }, (_, i) => 8 + i);

const vector = (name: string): { stream: Buffer; facts: VectorFacts } => ({
  stream: gunzipSync(readFileSync(join(FOLDER, `${name}.bin.gz`))),
  facts: JSON.parse(readFileSync(join(FOLDER, `${name}.json`), "utf8")),
});
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const without = (bytes: Buffer, hex: string): Buffer => {
  const piece = Buffer.from(hex, "hex");
  const at = bytes.indexOf(piece);
  if (at < 0) throw new Error(`no ${hex}`);
  return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + piece.length)]);
};

function memoryOf({ pages }: RewrittenPostcopy, facts: VectorFacts): readonly string[] {
  const guest = Buffer.alloc(facts.blocks.reduce((sum, [, byteLength]) => sum + byteLength, 0));
  for (const { page, content } of pages) guest.fill(content ?? 0, page * 4096, (page + 1) * 4096);
  return [sha256(guest.subarray(0, LOW_END)), sha256(guest.subarray(HIGH_START, 16 << 20))];
}

const used = vector("postcopy-pc-i440fx-10.0");
const read = rewritePostcopy(used.stream);

t.test("the parts of QEMU's post-copy stream are told in their order", async (t) => {
  const words = read.log.map((line) => line.split(" ", line.startsWith("ping") ? 2 : 1).join(" "));
  t.strictSame(
    words.filter((word, i) => word !== words[i - 1]),
    ["ping 1", "advised", "layout", "stopped", "discard", "ping 2", "package", "packageEnd", "ping 4", "ramEnd", "end"],
  );
  t.equal(read.left, 0);
});

t.test("each page that is discarded comes again once, and no other page does", async (t) => {
  const discarded = read.log
    .map((line) => /^discard (\d+)\+(\d+)$/.exec(line))
    .filter((match) => match !== null)
    .flatMap(([, first, count]) => Array.from({ length: Number(count) }, (_, i) => Number(first) + i));
  const before = read.pages.slice(0, read.pagesBefore).map(({ page }) => page);
  const after = read.pages.slice(read.pagesBefore).map(({ page }) => page);
  const ascending = (pages: number[]): number[] => [...pages].sort((a, b) => a - b);
  t.strictSame(ascending(after), ascending(discarded));
  t.equal(new Set(after).size, after.length);
  t.ok(before.some((page) => CHANGING.includes(page)) && before.some((page) => !after.includes(page)));
  t.ok(CHANGING.every((page) => discarded.includes(page)));
});

t.test("the pages of the stream make the memory that QEMU's monitor saved", async (t) => {
  t.strictSame(memoryOf(read, used.facts), used.facts.memorySha256);
});

t.test("the package begins with LISTEN, and ends with PING(3) and RUN", async (t) => {
  t.equal(read.package.subarray(0, 6).toString("hex"), "080004000004");
  t.equal(read.package.subarray(-14).toString("hex"), "080002000400000003" + "0800050000");
});

t.test(
  "written again, the stream is the same, except for commands that mean nothing to the agents, and a name",
  async (t) => {
    const expected = without(without(used.stream, "0800010000"), "08000b0000");
    const ping = Buffer.from("080002000400000004", "hex");
    const at = expected.indexOf(ping);
    t.ok(read.bytes.subarray(0, at).equals(expected.subarray(0, at)));
    // QEMU names its block again after the discards (migration/ram.c, ram_postcopy_send_discard_bitmap), and need not
    const record = at + ping.length + 5;
    t.equal(expected.toString("latin1", record + 8, record + 15), "\u0006pc.ram");
    t.ok(read.bytes.subarray(record + 8).equals(expected.subarray(record + 15)));
  },
);

t.test("a stream with the capability that completes as in precopy is read to its end", async (t) => {
  const { stream, facts } = vector("postcopy-unused-pc-i440fx-10.0");
  const got = rewritePostcopy(stream);
  t.strictSame(got.log, ["ping 1", "advised", "layout", "stopped", "ramEnd", "end"]);
  t.strictSame(memoryOf(got, facts), facts.memorySha256);
  t.ok(got.bytes.equals(without(without(stream, "0800010000"), "08000b0000")));
});
