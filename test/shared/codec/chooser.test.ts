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
  const start = chooser.level(LINK);
  const levels = run(chooser, 60, () => {
    chooser.linkWasFull();
    chooser.encoderWasFull();
  });
  t.ok(levels.every((level) => level === start));
});

t.test("without an idle processor a strong level is given up, and none is begun", async (t) => {
  let idle: number | undefined = 3;
  const chooser = new CompressionChooser("auto", 1, () => idle);
  t.equal(run(chooser, 60, () => chooser.linkWasFull()).at(-1), 3);
  idle = 0.2;
  t.equal(run(chooser, 60, () => chooser.linkWasFull()).at(-1), -8, "whoever else is narrow");
  idle = 0.4;
  t.equal(run(chooser, 60, () => chooser.linkWasFull()).at(-1), -8, "nor with a part of one, which is idle by turns");
  t.equal(
    run(chooser, 60, () => chooser.encoderWasFull()).at(-1),
    -20,
    "and a worker that is gets a weaker one as ever",
  );
  t.equal(run(chooser, 60, () => chooser.linkWasFull()).at(-1), -8);
  idle = undefined;
  t.equal(run(chooser, 60, () => chooser.linkWasFull()).at(-1), 3, "where it cannot be told the link counts");
});

t.test("a level that was asked for is kept, and off is off", async (t) => {
  const fixed = new CompressionChooser(7, 1);
  t.ok(run(fixed, 40, () => fixed.encoderWasFull()).every((level) => level === 7));
  t.equal(fixed.level(1e12), 7, "on any link");
  t.equal(new CompressionChooser("off", 1).level(LINK), undefined);
  t.equal(new CompressionChooser("auto", 0).level(LINK), undefined, "no workers, no compression");
});

t.test("a link that outruns the fastest level gets no compression, but for a frame now and then", async (t) => {
  const chooser = new CompressionChooser("auto", 1);
  // 524 MB/s
  run(chooser, 60, () => chooser.encoderWasFull());
  t.equal(chooser.level(700e6), -20, "a link that is hardly faster");
  const levels = Array.from({ length: 128 }, () => chooser.level(1.25e9));
  t.equal(levels.filter((level) => level === -20).length, 2);
  t.equal(levels.filter((level) => level === undefined).length, 126);
  t.equal(chooser.level(LINK), -20, "a link that got slower");
  for (let i = 0; i < 40; i++) chooser.note({ ...frame, micros: 100 });
  t.equal(chooser.level(1.25e9), -20, "a worker that got faster");
});

t.test(
  "before anything was compressed, and on a level that the workers bear, the link's rate does not matter",
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
