/** Tests which level of zstd the model expects. */
import t from "tap";
import { bestChoice, type CodecChoice } from "../../../shared/model/codec-choice.ts";

const none: CodecChoice = { level: undefined, pageBytes: 4096, bytesPerSecond: Number.POSITIVE_INFINITY };
const fast: CodecChoice = { level: -5, pageBytes: 2000, bytesPerSecond: 500e6 };
const strong: CodecChoice = { level: 3, pageBytes: 1500, bytesPerSecond: 200e6 };

t.test("the strongest level that keeps the link full is best, and none where the link outruns all", async (t) => {
  const all = [none, fast, strong];
  t.equal(bestChoice(all, 12.5e6, 1).level, 3, "a slow link");
  t.equal(bestChoice(all, 240e6, 1).level, -5, "the strong level cannot fill this link");
  t.equal(bestChoice(all, 5e9, 1).level, undefined);
  t.equal(bestChoice(all, 240e6, 4).level, 3, "with more threads the strong level can fill it");
});

t.test("of two choices that are as quick, the one with fewer bytes is best", async (t) => {
  const slow = { level: 1, pageBytes: 1000, bytesPerSecond: 100e6 };
  t.equal(bestChoice([{ ...slow, pageBytes: 1200 }, slow], 1e9, 1).pageBytes, 1000);
  t.throws(() => bestChoice([], 1, 1), RangeError);
});
