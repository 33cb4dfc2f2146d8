import t from "tap";
import { CompressionChooser } from "../../../shared/codec/chooser.ts";
import { CompressionTrial } from "../../../shared/codec/compression-trial.ts";

const FRAME = 512 << 10;
/** Frames of a window, of 6 MiB. */
const WINDOW = 12;

interface Hosts {
  /** Bytes per second before compression, with it and without. */
  readonly withIt: number;
  readonly without: number;
  readonly link?: number;
  readonly isScarce?: boolean;
}

let nowUs = 1e6;

/** @returns of each frame, whether it went without */
function run({ withIt, without, link = 500e6, isScarce = true }: Hosts, windows: number, trial: CompressionTrial) {
  return Array.from({ length: windows * WINDOW }, () => {
    nowUs += (1e6 * FRAME) / (trial.without ? without : withIt);
    trial.made(FRAME, nowUs, link, () => isScarce);
    return trial.without;
  });
}

t.test("where the hosts are narrow and pages go faster without, they go without", async (t) => {
  const went = run({ withIt: 120e6, without: 180e6 }, 40, new CompressionTrial());
  const first = went.indexOf(true);
  t.ok(first > 3 * WINDOW, "not while everything is still compiled");
  t.ok(went.slice(first).every((one) => one));
});

t.test("where they do not, it is left after three windows, and tried again ever later", async (t) => {
  const went = run({ withIt: 120e6, without: 130e6 }, 400, new CompressionTrial());
  const tries = went.flatMap((one, index) => (one && !went[index - 1] ? [index / WINDOW] : []));
  t.equal(went.filter((one) => one).length, 3 * WINDOW * tries.length);
  t.equal(tries.length, 3, `${tries}`);
  t.ok((tries[1] ?? 0) - (tries[0] ?? 0) > 30, `${tries}`);
});

t.test("what was faster without and is no more, since the link has become slow, is compressed again", async (t) => {
  const trial = new CompressionTrial();
  t.ok(run({ withIt: 120e6, without: 180e6 }, 20, trial).at(-1));
  t.notOk(run({ withIt: 120e6, without: 60e6 }, 20, trial).at(-1));
});

t.test("what was faster is left when a processor is idle again, or the link is what is full", async (t) => {
  const trial = new CompressionTrial();
  t.ok(run({ withIt: 120e6, without: 180e6 }, 20, trial).at(-1));
  t.notOk(run({ withIt: 120e6, without: 180e6, isScarce: false }, 2, trial).at(-1));
});

t.test("nothing is tried where the link carried less than that, or a processor is idle", async (t) => {
  const fast = { withIt: 150e6, without: 300e6 };
  t.notOk(run({ ...fast, link: 118e6 }, 40, new CompressionTrial()).includes(true));
  t.notOk(run({ ...fast, isScarce: false }, 40, new CompressionTrial()).includes(true));
});

t.test("the wait for a guest that does nothing is no slowness", async (t) => {
  const trial = new CompressionTrial();
  for (let frame = 0; frame < 3 * WINDOW; frame++) {
    nowUs += 60e6;
    trial.made(FRAME, nowUs, 500e6, () => true);
  }
  const went = run({ withIt: 200e6, without: 210e6 }, 12, trial);
  t.equal(went.indexOf(true), 4 * WINDOW - 1, "what was waited for is no window");
  t.notOk(went.at(-1));
});

t.test("the chooser goes without then, but never where a level was asked for", async (t) => {
  const idle = (): number => 0;
  const [auto, fixed] = [new CompressionChooser("auto", 2, idle), new CompressionChooser(-8, 2, idle)];
  for (const chooser of [auto, fixed]) {
    chooser.note({ rawBytes: FRAME, encodedBytes: FRAME / 2, micros: 1000 });
    t.equal(chooser.level(118e6), -8);
    for (let frame = 0; frame < 60; frame++) {
      nowUs += chooser.level(118e6) === undefined ? 2000 : 4000;
      chooser.made(FRAME, nowUs, 500e6);
    }
  }
  t.same([auto.level(118e6), auto.recentRatio], [undefined, 1]);
  t.same([fixed.level(118e6), fixed.recentRatio], [-8, 2]);
});
