import t from "tap";
import { createDisplay } from "../../cli/progress-display.ts";
import { progress, view } from "../support/cli-fixtures.ts";

function rig(isInteractive: boolean, json = false) {
  const seen = { out: "", err: "" };
  let nowMs = 0;
  const display = createDisplay(
    {
      out: (text) => {
        seen.out += text;
      },
      err: (text) => {
        seen.err += text;
      },
      isInteractive,
      columns: () => 60,
      confirm: async () => false,
      monotonicMs: () => nowMs,
    },
    json,
  );
  const showAt = (ms: number, status: "preparing" | "copying" | "moved", passes = 1): void => {
    nowMs = ms;
    display.show(view({ status, progress: progress({ passes }) }));
  };
  return { seen, display, showAt };
}

t.test("a terminal is redrawn in place, ten times a second at most", async (t) => {
  const { seen, display, showAt } = rig(true);
  for (let ms = 0; ms < 1000; ms += 10) showAt(ms, "copying");
  t.equal(seen.out.split("\r\u001b[K").length - 1, 10);
  t.notMatch(seen.out, /\n/);
  display.end();
  t.ok(seen.out.endsWith("\r\u001b[K"), "and left clean");
});

t.test("a change of status is shown at once", async (t) => {
  const { seen, showAt } = rig(true);
  showAt(0, "preparing");
  showAt(1, "copying");
  t.match(seen.out, /preparing[\s\S]*copying/);
});

t.test("elsewhere there is a line a second, and one for each change", async (t) => {
  const { seen, showAt } = rig(false);
  showAt(0, "preparing");
  for (let ms = 10; ms < 3000; ms += 100) showAt(ms, "copying");
  showAt(3000, "moved");
  const lines = seen.out.trimEnd().split("\n");
  t.equal(lines.length, 5);
  t.match(lines.at(-1), /moved/);
});

t.test("JSON has every view, one a line, and notes stay out of it", async (t) => {
  const { seen, display, showAt } = rig(true, true);
  for (let passes = 0; passes < 5; passes++) showAt(0, "copying", passes);
  display.note("a word");
  display.end();
  const views = seen.out
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  t.same(
    views.map((one) => one.progress.passes),
    [0, 1, 2, 3, 4],
  );
  t.equal(seen.err, "a word\n");
});
