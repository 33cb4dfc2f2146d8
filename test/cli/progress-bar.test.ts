/** Tests the one line that says how a migration stands. */
import fc from "fast-check";
import t from "tap";
import { barText, plainLine, progressLine } from "../../cli/progress-bar.ts";
import { progress, view } from "../support/cli-fixtures.ts";

t.test("a wide terminal shows everything on one line", async (t) => {
  t.equal(
    progressLine(view(), 200),
    "web  copying  12.3 s  [██████████▍         ]  52%  118 MB/s  pass 7  residual 34.2 MB  downtime ~290 ms  ETA 4.2 s  heat █▇▅▁█",
  );
});

t.test("a narrow terminal loses the least important first and never wraps", async (t) => {
  t.equal(progressLine(view(), 80), "web  copying  12.3 s  52%  118 MB/s  downtime ~290 ms  ETA 4.2 s");
  t.equal(progressLine(view(), 40), "copying  52%  ETA 4.2 s");
  t.equal(progressLine(view(), 8), "copying");
  for (let columns = 0; columns < 130; columns++) t.ok(progressLine(view(), columns).length <= columns);
});

t.test("before the first byte the line shows nothing but the wait", async (t) => {
  t.equal(progressLine(view({ status: "preparing" }), 100), "web  preparing  12.3 s");
});

t.test("a migration that has no downtime shows none", async (t) => {
  const paused = view({ progress: progress({ estimatedDowntimeMs: 0 }) });
  for (const line of [progressLine(paused, 200), plainLine(paused)]) t.notMatch(line, /downtime/);
});

t.test("for a migration that comes to the host, only what its destination measures is shown", async (t) => {
  const incoming = view({ source: "host-a:7411" });
  t.equal(progressLine(incoming, 200), "web  receiving  12.3 s");
  t.equal(plainLine(incoming), "12.3s  web  receiving");
  const cut = view({ source: "host-a:7411", status: "inDoubt", progress: progress({ linkDownSeconds: 7 }) });
  t.equal(plainLine(cut), "12.3s  web  in doubt  LINK DOWN 7.0 s");
});

t.test("the line says that a guest runs at both hosts, however narrow the line is", async (t) => {
  const doubled = view({ status: "doubled" });
  t.equal(progressLine(doubled, 200), "web  RUNS AT BOTH HOSTS  12.3 s");
  t.equal(progressLine(doubled, 20), "RUNS AT BOTH HOSTS");
  t.match(plainLine(doubled), /^12\.3s {2}web {2}RUNS AT BOTH HOSTS/);
});

t.test("the bar has its width, whatever fraction it is given", async () => {
  fc.assert(
    fc.property(fc.double(), fc.integer({ min: 1, max: 60 }), (fraction, cells) => {
      const text = barText(Number.isNaN(fraction) ? 0 : fraction, cells);
      return text.length === cells && /^█*[▏▎▍▌▋▊▉]? *$/.test(text);
    }),
  );
});

t.test("a plain line names every figure", async (t) => {
  t.equal(
    plainLine(view({ status: "switching", progress: progress({ firstPassFraction: 1 }) })),
    "12.3s  web  switching over  first pass 100%  passes 7  sent 640 MB  rate 118 MB/s  dirty 200 MB/s  residual 34.2 MB  estimated downtime 290 ms  ETA 4.2 s",
  );
});

t.test("a migration that does not converge says so, with the rates that keep it from converging", async (t) => {
  const { etaSeconds: _, ...endless } = progress({
    stalledSeconds: 9.5,
    estimatedDowntimeMs: 812,
    firstPassFraction: 1,
  });
  const stalled = view({ progress: endless });
  t.match(
    progressLine(stalled, 250),
    /copying {2}12\.3 s {2}NOT CONVERGING .*downtime ~812 ms {2}target 300 ms; dirties 200 MB\/s, link takes 118 MB\/s/,
  );
  t.match(progressLine(stalled, 30), /^copying {2}NOT CONVERGING/);
  t.match(
    plainLine(stalled),
    /not converging for 9\.5 s: 812 ms estimated, target 300 ms; dirties 200 MB\/s, link takes 118 MB\/s$/,
  );
  t.notMatch(progressLine(stalled, 250), /ETA/);
});
