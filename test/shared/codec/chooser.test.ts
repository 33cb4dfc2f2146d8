import t from "tap";
import { CompressionChooser } from "../../../shared/codec/chooser.ts";

const frame = { rawBytes: 262_144, encodedBytes: 131_072, micros: 500 };
const run = (chooser: CompressionChooser, frames: number, wait: () => void): number[] => {
  const levels: number[] = [];
  for (let i = 0; i < frames; i++) {
    wait();
    chooser.note(frame);
    levels.push(chooser.level() ?? 0);
  }
  return levels;
};

t.test("a link that is the narrow side gets the strongest level", async (t) => {
  const chooser = new CompressionChooser("auto", 1);
  const levels = run(chooser, 60, () => chooser.linkWasFull());
  t.equal(levels.at(-1), 3);
  t.same(
    levels,
    [...levels].sort((a, b) => a - b),
    "step by step",
  );
});

t.test("workers that are the narrow side get the fastest level", async (t) => {
  const chooser = new CompressionChooser("auto", 1);
  t.equal(run(chooser, 60, () => chooser.encoderWasFull()).at(-1), -20);
});

t.test("a balance is left alone", async (t) => {
  const chooser = new CompressionChooser("auto", 1);
  const start = chooser.level();
  const levels = run(chooser, 60, () => {
    chooser.linkWasFull();
    chooser.encoderWasFull();
  });
  t.ok(levels.every((level) => level === start));
});

t.test("a level that was asked for is kept, and off is off", async (t) => {
  const fixed = new CompressionChooser(7, 1);
  t.ok(run(fixed, 40, () => fixed.encoderWasFull()).every((level) => level === 7));
  t.equal(new CompressionChooser("off", 1).level(), undefined);
  t.equal(new CompressionChooser("auto", 0).level(), undefined, "no workers, no compression");
});

t.test("with the guest stopped, a frame is compressed only when that is faster than sending it", async (t) => {
  const chooser = new CompressionChooser("auto", 1);
  run(chooser, 12, () => undefined);
  t.equal(chooser.recentRatio.toFixed(1), "2.0");
  t.ok(chooser.paysOff(262_144, 1e6), "on a slow link");
  t.notOk(chooser.paysOff(262_144, 10e9), "on a fast one");
});
