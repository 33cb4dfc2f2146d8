/** Tests `CompressionChooser`: which zstd level the next frame gets. */
import t from "tap";
import { CompressionChooser } from "../../../shared/codec/chooser.ts";

const frame = { rawBytes: 262_144, encodedBytes: 131_072, micros: 500 };
const LINK = 125e6;
const run = (chooser: CompressionChooser, frames: number, wait: () => void): number[] => {
  const levels: number[] = [];
  for (let i = 0; i < frames; i++) {
    wait();
    chooser.note(frame);
    levels.push(chooser.level(LINK) ?? 0);
  }
  return levels;
};

t.test("a link that is the bottleneck gets the strongest level", async (t) => {
  const chooser = new CompressionChooser("auto", 1);
  const levels = run(chooser, 60, () => chooser.linkWasFull());
  t.equal(levels.at(-1), 3);
  t.same(
    levels,
    [...levels].sort((a, b) => a - b),
    "the level rises step by step",
  );
});

t.test("workers that are the bottleneck get the fastest level", async (t) => {
  const chooser = new CompressionChooser("auto", 1);
  t.equal(run(chooser, 60, () => chooser.encoderWasFull()).at(-1), -20);
});

t.test("while both the link and the workers are full, the level stays", async (t) => {
  const chooser = new CompressionChooser("auto", 1);
  const start = chooser.level(LINK);
  const levels = run(chooser, 60, () => {
    chooser.linkWasFull();
    chooser.encoderWasFull();
  });
  t.ok(levels.every((level) => level === start));
});

t.test("without an idle processor strong levels are given up, and none is begun", async (t) => {
  let idle: number | undefined = 3;
  const chooser = new CompressionChooser("auto", 1, () => idle);
  t.equal(run(chooser, 60, () => chooser.linkWasFull()).at(-1), 3);
  idle = 0.2;
  t.equal(
    run(chooser, 60, () => chooser.linkWasFull()).at(-1),
    -8,
    "strong levels are given up, although the link is the bottleneck",
  );
  idle = 0.4;
  t.equal(
    run(chooser, 60, () => chooser.linkWasFull()).at(-1),
    -8,
    "a processor that is idle only by turns does not count",
  );
  t.equal(
    run(chooser, 60, () => chooser.encoderWasFull()).at(-1),
    -20,
    "workers that are the bottleneck get a faster level as before",
  );
  t.equal(run(chooser, 60, () => chooser.linkWasFull()).at(-1), -8);
  idle = undefined;
  t.equal(
    run(chooser, 60, () => chooser.linkWasFull()).at(-1),
    3,
    "the link decides where idle processors cannot be counted",
  );
});

t.test("a level that was asked for is kept, and `off` means no compression", async (t) => {
  const fixed = new CompressionChooser(7, 1);
  t.ok(run(fixed, 40, () => fixed.encoderWasFull()).every((level) => level === 7));
  t.equal(fixed.level(1e12), 7, "the level is kept on any link");
  t.equal(new CompressionChooser("off", 1).level(LINK), undefined);
  t.equal(new CompressionChooser("auto", 0).level(LINK), undefined, "without workers there is no compression");
});

t.test("a link that outruns the fastest level gets no compression, except for a frame now and then", async (t) => {
  const chooser = new CompressionChooser("auto", 1);
  // the workers compress 524 MB/s
  run(chooser, 60, () => chooser.encoderWasFull());
  t.equal(chooser.level(700e6), -20, "the link is hardly faster than the workers");
  const levels = Array.from({ length: 128 }, () => chooser.level(1.25e9));
  t.equal(levels.filter((level) => level === -20).length, 2);
  t.equal(levels.filter((level) => level === undefined).length, 126);
  t.equal(chooser.level(LINK), -20, "the link got slower");
  for (let i = 0; i < 40; i++) chooser.note({ ...frame, micros: 100 });
  t.equal(chooser.level(1.25e9), -20, "the workers got faster");
});

t.test(
  "before anything was compressed, and at a level that the workers bear, the link's rate does not matter",
  async (t) => {
    const chooser = new CompressionChooser("auto", 1);
    t.equal(chooser.level(1e12), -8);
    run(chooser, 11, () => chooser.encoderWasFull());
    t.equal(chooser.level(1e12), -8);
  },
);

t.test("with the guest stopped, a frame is compressed only when that is faster than sending it", async (t) => {
  const chooser = new CompressionChooser("auto", 1);
  run(chooser, 12, () => undefined);
  t.equal(chooser.recentRatio.toFixed(1), "2.0");
  t.ok(chooser.paysOff(262_144, 1e6), "on a slow link");
  t.notOk(chooser.paysOff(262_144, 10e9), "on a fast one");
});
