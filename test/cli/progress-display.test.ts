/** Tests how the progress of a migration is shown: on a terminal, as plain lines, and as JSON. */
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
    display.show(view({ status, progress: progress({ passes }), negotiated: {} }));
  };
  return { seen, display, showAt };
}

t.test("a terminal is redrawn in place, at most ten times a second", async (t) => {
  const { seen, display, showAt } = rig(true);
  for (let ms = 0; ms < 1000; ms += 10) showAt(ms, "copying");
  t.equal(seen.out.split("\r\u001b[K").length - 1, 10);
  t.notMatch(seen.out, /\n/);
  display.end();
  t.ok(seen.out.endsWith("\r\u001b[K"), "the terminal is left clean");
});

t.test("a change of status is shown at once", async (t) => {
  const { seen, showAt } = rig(true);
  showAt(0, "preparing");
  showAt(1, "copying");
  t.match(seen.out, /preparing[\s\S]*copying/);
});

t.test("where there is no terminal, a line is written each second and for each change", async (t) => {
  const { seen, showAt } = rig(false);
  showAt(0, "preparing");
  for (let ms = 10; ms < 3000; ms += 100) showAt(ms, "copying");
  showAt(3000, "moved");
  const lines = seen.out.trimEnd().split("\n");
  t.equal(lines.length, 5);
  t.match(lines.at(-1), /moved/);
});

for (const [where, isInteractive] of [
  ["a terminal", true],
  ["elsewhere", false],
] as const)
  t.test(`agreed terms are said once, when they are known, and measured ones after them: ${where}`, async (t) => {
    const { seen, display } = rig(isInteractive);
    const at = (status: "preparing" | "copying" | "moved", negotiated: Record<string, string>): void =>
      display.show(view({ status, negotiated }));
    at("preparing", {});
    t.notMatch(seen.out, /Agreed/);
    at("preparing", { strategy: "hybrid", tls: "TLS 1.3, peer b" });
    const measured = { strategy: "hybrid", tls: "TLS 1.3, peer b", "measured round trip": "2 ms\u0007" };
    for (const status of ["copying", "copying", "moved"] as const) at(status, measured);
    const lines = seen.out
      .replaceAll("\r\u001b[K", "\n")
      .split("\n")
      .filter((line) => /^(Agreed| {2}[a-z ]+:)/.test(line));
    t.same(lines, ["Agreed:", "  strategy: hybrid", "  tls: TLS 1.3, peer b", "  measured round trip: 2 ms?"]);
    t.ok(seen.out.indexOf("Agreed") < seen.out.indexOf("copying"), "the terms come before the first page");
  });

t.test("a migration that has ended shows the agreed terms in its summary only", async (t) => {
  const { seen, display } = rig(false);
  display.show(view({ status: "moved" }));
  t.notMatch(seen.out, /Agreed/);
});

t.test("JSON has every view, one on each line, and notes stay out of it", async (t) => {
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
