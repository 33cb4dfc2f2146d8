/** Tests the commands that an agent writes to the destination's QEMU. */
import t from "tap";
import {
  DiscardEncoder,
  encodeAdvise,
  encodeOpenReturnPath,
  encodePackageHead,
  encodePing,
  encodePostcopyEnd,
  encodeRecvBitmap,
  encodeResume,
} from "../../../../shared/qemu/stream/command-encoder.ts";
import { discard } from "../../../support/fake-postcopy.ts";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const BLOCKS = [
  { name: "pc.ram", byteLength: 6 * 2 ** 30 },
  { name: "empty", byteLength: 0 },
  { name: "pc.bios", byteLength: 8192 },
];
const RAM_PAGES = 6 * 2 ** 18;

/** Encodes the commands for these ranges. */
function discards(ranges: readonly (readonly [first: number, count: number])[]): string[] {
  const commands: string[] = [];
  const encoder = new DiscardEncoder(BLOCKS, (command) => commands.push(hex(command)));
  for (const [first, count] of ranges) encoder.add(first, count);
  encoder.flush();
  encoder.flush();
  return commands;
}
const expected = (name: string, ranges: readonly (readonly [start: number, bytes: number])[]): string =>
  hex(discard(name, ranges).done());

t.test("a command has its type, number, length and payload", async (t) => {
  t.equal(hex(encodeOpenReturnPath()), "0800010000");
  t.equal(hex(encodePing(0xdeadbeef)), "0800020004deadbeef");
  t.equal(hex(encodeAdvise()), "08000300100000000000001000" + "0000000000001000");
  t.equal(hex(encodePackageHead(0x89abcdef)), "080007000489abcdef");
  t.equal(hex(encodeRecvBitmap("pc.ram")), "08000a0007" + "06" + "70632e72616d");
  t.equal(hex(encodeResume()), "0800090000");
  t.equal(hex(encodePostcopyEnd(2)), "030000000200000000000000107e0000000200");
});

t.test("a discard holds up to twelve ranges of one block", async (t) => {
  const ranges = Array.from({ length: 13 }, (_, i) => [3 * i, 1] as const);
  const bytes = ranges.map(([first]) => [first * 4096, 4096] as const);
  t.strictSame(discards(ranges), [expected("pc.ram", bytes.slice(0, 12)), expected("pc.ram", bytes.slice(12))]);
  t.strictSame(
    discards([
      [0, 1],
      [RAM_PAGES + 1, 1],
      [5, 2],
    ]),
    [expected("pc.ram", [[0, 4096]]), expected("pc.bios", [[4096, 4096]]), expected("pc.ram", [[5 * 4096, 8192]])],
  );
});

t.test("a range over the end of a block becomes a range in each of both blocks", async (t) => {
  t.strictSame(discards([[RAM_PAGES - 1, 3]]), [
    expected("pc.ram", [[6 * 2 ** 30 - 4096, 4096]]),
    expected("pc.bios", [[0, 8192]]),
  ]);
  t.strictSame(discards([[0, RAM_PAGES]]), [expected("pc.ram", [[0, 6 * 2 ** 30]])]);
});

t.test("without a range there is no command, and pages of no block are a mistake of the caller", async (t) => {
  t.strictSame(discards([]), []);
  t.strictSame(discards([[7, 0]]), []);
  t.throws(() => discards([[RAM_PAGES + 1, 2]]), RangeError);
});
