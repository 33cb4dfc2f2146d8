/** Tests the plots of the suite's report by what a reader, a pointer and a screen reader would find in them. */
import { parseHTML } from "linkedom";
import t from "tap";
import { bars, heatOverTime, lines, ratioMap } from "./suite/charts.ts";
import { type CellSummary, spreadOf } from "./suite/summary.ts";

const cell = (workload: string, contender: string, seconds: number, completed = true): CellSummary => {
  const none = spreadOf([]);
  return {
    ...{ workload, contender, link: "1 Gbit/s", samples: [], completed, ended: [], totalSeconds: spreadOf([seconds]) },
    ...{ downtimeMs: none, stallMs: none, bytes: none, slowDown: none, qemuCpuSeconds: none },
    ...{ sourceAgentCpuSeconds: none, destinationAgentCpuSeconds: none, agentPeakBytes: none },
  };
};
const totals = (cells: readonly CellSummary[]): string => bars("Total time", "s", cells, (one) => one.totalSeconds);

interface Mark {
  /** The text that is shown under the pointer. */
  readonly title: string;
  readonly at: (attribute: string) => number;
  readonly fill: string;
}

/** Parses a plot. The functions that are returned find its parts by the names that these have for screen readers. */
function seen(html: string) {
  const { document } = parseHTML(html);
  const texts = (selector: string): string[] =>
    [...document.querySelectorAll(selector)].map((one) => one.textContent.trim());
  const legend = [...document.querySelectorAll('[class$="-swatch"]')].map(
    (one) => [one.textContent as string, one.firstElementChild.getAttribute("fill") as string] as const,
  );
  return {
    texts,
    legend: new Map(legend),
    label: (part: string): string[] => texts(`figure > svg:last-of-type g[aria-label="${part}"] text`),
    paths: (part: string): string[] =>
      [...document.querySelectorAll(`g[aria-label="${part}"] path`)].map((one) => one.getAttribute("d")),
    marks: (part: string): Mark[] =>
      [...document.querySelectorAll(`g[aria-label="${part}"] title`)].map(({ textContent, parentElement }) => ({
        title: textContent,
        at: (attribute) => Number(parentElement.getAttribute(attribute)),
        fill: parentElement.getAttribute("fill"),
      })),
  };
}

const titles = (marks: readonly Mark[]): string[] => marks.map(({ title }) => title);
const redAndBlue = ({ fill }: Mark): [red: number, blue: number] => {
  const [red, , blue] = (fill.match(/\d+/g) ?? []).map(Number);
  return [red ?? Number.NaN, blue ?? Number.NaN];
};

t.test("bars() names workloads, contenders, unit and figures, and draws heights on a log scale", async (t) => {
  const plot = seen(
    totals([
      cell("idle", "qemu", 1),
      cell("idle", "ferry", 10),
      cell("<zipf>", "qemu", 100),
      cell("cpu", "ferry", 2.5),
    ]),
  );
  t.same(plot.texts("h3"), ["Total time"]);
  t.same([...plot.legend.keys()], ["qemu", "ferry"]);
  t.same(plot.label("fx-axis tick label"), ["idle", "<zipf>", "cpu"]);
  t.same(plot.label("y-axis label"), ["↑ s"]);
  t.same(plot.label("y-axis tick label"), ["0.5", "1", "2", "5", "10", "20", "50", "100"]);
  const drawn = plot.marks("bar");
  t.same(titles(drawn), ["idle, qemu: 1 s", "idle, ferry: 10 s", "<zipf>, qemu: 100 s", "cpu, ferry: 2.5 s"]);
  const [one = 0, ten = 0, hundred = 0] = drawn.map(({ at }) => at("height"));
  t.ok(one > 0 && Math.abs(hundred - ten - (ten - one)) <= 1, `1, 10 and 100 s are ${one}, ${ten} and ${hundred} high`);
  t.equal(drawn[1]?.fill, plot.legend.get("ferry"));
});

t.test("bars() draws a contender that did not come to its end as hollow and explains that", async (t) => {
  const plot = seen(totals([cell("dense", "qemu", 60, false), cell("dense", "ferry", 6)]));
  const [qemu, ferry] = plot.marks("bar");
  t.equal(qemu?.title, "dense, qemu: 60 s, no end");
  t.ok((qemu?.at("fill-opacity") ?? 1) < 0.5, "the bar is faint");
  t.equal(ferry?.at("fill-opacity"), 1);
  t.match(plot.texts("figcaption"), [/did not come to its end/]);
  t.same(seen(totals([cell("dense", "ferry", 6)])).texts("figcaption"), [], "there is nothing to explain");
});

t.test("ratioMap() prints each ratio, and colours ratios below and above 1 differently", async (t) => {
  const ratios = new Map([
    ["idle qemu", 1],
    ["idle ferry", 0.5],
    ["dense ferry", 2],
  ]);
  const map = ratioMap("Beside QEMU", ["idle", "dense"], ["qemu", "ferry"], (row, column) =>
    ratios.get(`${row} ${column}`),
  );
  const plot = seen(map);
  t.same(plot.texts("h3"), ["Beside QEMU"]);
  t.same(plot.label("y-axis tick label"), ["idle", "dense"]);
  t.same(plot.label("x-axis tick label"), ["qemu", "ferry"]);
  t.same(plot.label("text"), ["–", "1.00", "0.50", "2.00"]);
  const [same, better, worse] = plot.marks("cell").map(redAndBlue);
  t.ok(same !== undefined && Math.abs(same[0] - same[1]) < 10, "1 is neither red nor blue");
  t.ok(better !== undefined && better[1] > better[0] + 50, "below 1 is blue");
  t.ok(worse !== undefined && worse[0] > worse[1] + 50, "above 1 is red");
  t.match(plot.texts("figure > svg:first-of-type text").join(" "), /0\.25 0\.5 1 2 4 .*below 1 is better/);
});

t.test("lines() names lines, axes and points, and breaks a line where a point is missing", async (t) => {
  const [qemu, long] = [
    [0, 1, 2, 3, 4].map((x) => [x, x === 2 ? Number.NaN : 10 * x] as const),
    Array.from({ length: 100 }, (_, x) => [x, 99 - x] as const),
  ];
  const plot = seen(
    lines("Left to send", "s", "MB", [
      { name: "qemu", points: qemu },
      { name: "ferry", points: long },
      { name: "never measured", points: [] },
    ]),
  );
  t.same(plot.texts("h3"), ["Left to send"]);
  t.same([...plot.legend.keys()], ["qemu", "ferry", "never measured"]);
  t.same(plot.label("x-axis label"), ["s →"]);
  t.same(plot.label("y-axis label"), ["↑ MB"]);
  const points = ["qemu: 0 at 0", "qemu: 10 at 1", "qemu: 30 at 3", "qemu: 40 at 4"];
  t.same(titles(plot.marks("dot")), points, "a line of many points has no dots");
  t.same(
    plot.paths("line").map((path) => [path.split("M").length - 1, path.split("L").length - 1]),
    [
      [2, 2],
      [1, 99],
    ],
  );
});

t.test("a contender has the same colour in all plots of a page", async (t) => {
  const all = seen(totals(["qemu", "ferry", "ferry no delta"].map((name) => cell("idle", name, 1))));
  const some = seen(lines("Memory", "MiB", "MB", [{ name: "ferry no delta", points: [[1, 1]] }]));
  t.equal(some.legend.get("ferry no delta"), all.legend.get("ferry no delta"));
  t.equal(new Set(all.legend.values()).size, 3);
});

t.test(
  "heatOverTime() has a row for each class, columns as wide as their time, and colours by the log of the pages",
  async (t) => {
    const columns = [
      { seconds: 0, heat: [100_000, 0] },
      { seconds: 1, heat: [1000, 10] },
      { seconds: 3, heat: [10, 1000] },
    ];
    const plot = seen(heatOverTime("Pages by heat", columns));
    t.same(plot.texts("h3"), ["Pages by heat"]);
    t.same(plot.label("y-axis tick label"), ["heat 1", "cold"], "the hottest class is on top");
    t.same(plot.label("x-axis label"), ["s →"]);
    t.match(plot.texts("figure > svg:first-of-type text").join(" "), /0 10 100 1k 10k 100k Pages/);
    const drawn = plot.marks("bar");
    t.same(titles(drawn), [
      ...["0.0 s, cold: 100k pages", "0.0 s, heat 1: 0 pages", "1.0 s, cold: 1k pages", "1.0 s, heat 1: 10 pages"],
      ...["3.0 s, cold: 10 pages", "3.0 s, heat 1: 1k pages"],
    ]);
    const [first, , second, , third] = drawn.map(({ at }) => at("width"));
    t.ok(second === third && Math.abs((second ?? 0) - 2 * (first ?? 0)) <= 1, `${first}, ${second} and ${third} wide`);
    t.equal(drawn[2]?.fill, drawn[5]?.fill, "equal numbers of pages have the same colour");
    t.equal(new Set(drawn.map(({ fill }) => fill)).size, 4);
  },
);

t.test("plots leave out figures that are no numbers, are empty without figures, and need no script", async (t) => {
  const [nan, infinite] = [Number.NaN, Number.POSITIVE_INFINITY];
  const plots = {
    "bars of what is no number": totals([
      ...[cell("idle", "a", nan), cell("idle", "b", infinite), cell("idle", "c", 0), cell("idle", "d", 3)],
    ]),
    "bars of nothing but NaN": totals([cell("idle", "a", nan)]),
    "no bars": totals([]),
    "ratios that are none": ratioMap("Ratios", ["idle"], ["a", "b", "c", "d"], (_, column) =>
      column === "a" ? nan : column === "b" ? infinite : column === "c" ? 0 : undefined,
    ),
    "no ratios": ratioMap("Ratios", [], [], () => 1),
    "lines to infinity": lines("Lines", "s", "MB", [
      { name: "a", points: [nan, infinite, 5, undefined as unknown as number].map((y, x) => [x, y] as const) },
      { name: "b", points: [[infinite, 1]] },
    ]),
    "a line without points": lines("Lines", "s", "MB", [{ name: "a", points: [] }]),
    "no lines": lines("Lines", "s", "MB", []),
    "heat of what is no number": heatOverTime("Heat", [
      { seconds: 0, heat: [nan, 1] },
      { seconds: nan, heat: [1, 1] },
      { seconds: 2, heat: [infinite] },
    ]),
    "heat of one moment": heatOverTime("Heat", [{ seconds: 1, heat: [7] }]),
    "no heat": heatOverTime("Heat", []),
  };
  for (const [what, html] of Object.entries(plots)) {
    t.equal(seen(html).texts("h3").length, 1, what);
    t.notMatch(html, /NaN|Infinity|undefined|null|⚠/, what);
    t.notMatch(html, /<script|<canvas|\sid=|\shref=/, what);
  }
  const someBars = seen(plots["bars of what is no number"]);
  t.same(titles(someBars.marks("bar")), ["idle, d: 3 s"]);
  t.same(someBars.label("y-axis tick label"), ["2", "5"], "the axis is for what is drawn");
  const someLines = seen(plots["lines to infinity"]);
  t.same(titles(someLines.marks("dot")), ["a: 5 at 2"]);
  t.same([someLines.label("x-axis tick label").at(-1), someLines.label("y-axis tick label").at(-1)], ["3.0", "5"]);
  t.same(titles(seen(plots["heat of one moment"]).marks("bar")), ["1.0 s, cold: 7 pages"]);
});
