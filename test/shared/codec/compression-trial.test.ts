/** Tests `CompressionTrial`: when pages go without compression. */
import t from "tap";
import { CompressionChooser } from "../../../shared/codec/chooser.ts";
import { CompressionTrial } from "../../../shared/codec/compression-trial.ts";

const FRAME = 512 << 10;
/** The frames of one window, which has 6 MiB. */
const WINDOW = 12;

interface Hosts {
  /** How many bytes a second go, counted before compression: with compression, and without. */
  readonly withIt: number;
  readonly without: number;
  readonly link?: number;
  readonly isScarce?: boolean;
}

let nowUs = 1e6;

/** Makes the frames of so many windows. @returns for each frame, whether it went without compression */
function run({ withIt, without, link = 500e6, isScarce = true }: Hosts, windows: number, trial: CompressionTrial) {
  return Array.from({ length: windows * WINDOW }, () => {
    nowUs += (1e6 * FRAME) / (trial.without ? without : withIt);
    trial.made(FRAME, nowUs, link, () => isScarce);
    return trial.without;
  });
}

t.test("where the hosts are the bottleneck and pages go faster without compression, they go without", async (t) => {
  const went = run({ withIt: 120e6, without: 180e6 }, 40, new CompressionTrial());
  const first = went.indexOf(true);
  t.ok(first > 3 * WINDOW, "nothing is tried while code is still being compiled");
  t.ok(went.slice(first).every((one) => one));
});

t.test("a trial that is not faster ends after three windows, and is repeated after ever longer times", async (t) => {
  const went = run({ withIt: 120e6, without: 130e6 }, 400, new CompressionTrial());
  const tries = went.flatMap((one, index) => (one && !went[index - 1] ? [index / WINDOW] : []));
  t.equal(went.filter((one) => one).length, 3 * WINDOW * tries.length);
  t.equal(tries.length, 3, `${tries}`);
  t.ok((tries[1] ?? 0) - (tries[0] ?? 0) > 30, `${tries}`);
});

t.test("pages are compressed again when the link has become so slow that this is faster", async (t) => {
  const trial = new CompressionTrial();
  t.ok(run({ withIt: 120e6, without: 180e6 }, 20, trial).at(-1));
  t.notOk(run({ withIt: 120e6, without: 60e6 }, 20, trial).at(-1));
});

t.test("pages are compressed again when processors are no longer scarce", async (t) => {
  const trial = new CompressionTrial();
  t.ok(run({ withIt: 120e6, without: 180e6 }, 20, trial).at(-1));
  t.notOk(run({ withIt: 120e6, without: 180e6, isScarce: false }, 2, trial).at(-1));
});

t.test("nothing is tried where the link cannot carry pages as they are, or a processor is idle", async (t) => {
  const fast = { withIt: 150e6, without: 300e6 };
  t.notOk(run({ ...fast, link: 118e6 }, 40, new CompressionTrial()).includes(true));
  t.notOk(run({ ...fast, isScarce: false }, 40, new CompressionTrial()).includes(true));
});

t.test("the wait for a guest that does nothing does not count as slowness", async (t) => {
  const trial = new CompressionTrial();
  for (let frame = 0; frame < 3 * WINDOW; frame++) {
    nowUs += 60e6;
    trial.made(FRAME, nowUs, 500e6, () => true);
  }
  const went = run({ withIt: 200e6, without: 210e6 }, 12, trial);
  t.equal(went.indexOf(true), 4 * WINDOW - 1, "a time that was waited is no window");
  t.notOk(went.at(-1));
});

t.test("the chooser follows the trial, but never where a level was asked for", async (t) => {
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
