/** Tests the figures that are rounded for people. */
import fc from "fast-check";
import t from "tap";
import {
  blockFor,
  bytesText,
  countText,
  durationText,
  histogram,
  memoryText,
  percentText,
  printable,
  rateText,
  ratioText,
} from "../../cli/figures.ts";

t.test("figures are rounded to three digits with the unit that fits", async (t) => {
  t.equal(bytesText(0), "0 B");
  t.equal(bytesText(999), "999 B");
  t.equal(bytesText(34_200_000), "34.2 MB");
  t.equal(bytesText(1e9), "1 GB");
  t.equal(bytesText(999_999), "1 MB");
  t.equal(memoryText(512 * 2 ** 20), "512 MiB");
  t.equal(rateText(118.4e6), "118 MB/s");
  t.equal(ratioText(14.21), "14.2 : 1");
  t.equal(ratioText(0), "none");
  t.equal(countText(1_234_567), "1 234 567");
  t.equal(countText(12), "12");
});

t.test("durations are told in the unit that people use", async (t) => {
  const cases: [number, string][] = [
    [0, "0 ms"],
    [0.82, "0.82 ms"],
    [41.7, "41.7 ms"],
    [300, "300 ms"],
    [999.7, "1.0 s"],
    [4210, "4.2 s"],
    [59_960, "1m 0s"],
    [200_000, "3m 20s"],
    [7_500_000, "2h 5m"],
    [Number.POSITIVE_INFINITY, "unknown"],
  ];
  for (const [ms, text] of cases) t.equal(durationText(ms), text);
});

t.test("a percentage is never rounded up to done", async (t) => {
  t.equal(percentText(0.999), "99%");
  t.equal(percentText(1), "100%");
  t.equal(percentText(-1), "0%");
  t.equal(percentText(2), "100%");
});

t.test("a histogram has a block for each class: the tallest is full, and an empty one is low", async (t) => {
  t.equal(histogram([]), "");
  t.equal(histogram([0, 0]), "▁▁");
  const text = histogram([100_000, 0, 10]);
  t.equal(text.length, 3);
  t.equal(text[0], "█");
  t.equal(text[1], "▁");
  t.equal(blockFor(0), "▁");
  t.equal(blockFor(1), "█");
});

t.test("nothing that an agent says reaches the terminal as a control sequence", async (t) => {
  t.equal(printable("a\u001b[2Jb\r\n\u202e"), "a?[2Jb???");
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => !/[\p{Cc}\p{Cf}]/u.test(printable(text))));
});
