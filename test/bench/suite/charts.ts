/** Draws the plots of the report as SVG figures, by Observable Plot without a browser. The page needs no script. */
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import type { CellSummary, Spread } from "./summary.ts";

const { document } = parseHTML("<!doctype html><html></html>");
const WIDTH = 1080;
const FONT = { fontSize: "12px" };
/**
 * The colours of contenders. Any two can be told apart, as bars and as thin lines. There are more contenders than the
 * usual palettes have colours.
 */
const COLOURS = [
  ...["#e6194b", "#f58231", "#e0bc00", "#a3c720", "#3cb44b", "#42d4f4", "#4363d8", "#911eb4"],
  ...["#f032e6", "#a9a9a9", "#f59ab5", "#9a6324", "#469990", "#800000", "#808000", "#000075"],
];

/** The colours of ratios: twice as fast is as far from white as half as fast. */
const RATIO: Plot.ScaleOptions = {
  ...{ type: "diverging-log", pivot: 1, domain: [0.25, 4], clamp: true, scheme: "RdBu", reverse: true },
};
/**
 * The colours of numbers of pages: log10(1 + pages), up to what a guest of 512 MiB has. They are the same in every
 * plot.
 */
const PAGES: Plot.ScaleOptions = { type: "symlog", domain: [0, 131072], clamp: true, scheme: "YlOrRd" };

const unique = (names: readonly string[]): string[] => [...new Set(names)];

/** The colours that were given to names. A name keeps its colour from plot to plot. */
const given = new Map<string, string | undefined>();
function named(names: readonly string[]) {
  for (const name of names) if (!given.has(name)) given.set(name, COLOURS[given.size % COLOURS.length]);
  const range = names.map((one) => given.get(one));
  return { type: "categorical", domain: names, range, legend: true, style: FONT } as const;
}

function short(figure: number): string {
  const power = figure >= 1e9 ? 3 : figure >= 1e6 ? 2 : figure >= 1e3 ? 1 : 0;
  return `${Number((figure / 1e3 ** power).toPrecision(3))}${["", "k", "M", "G"][power]}`;
}

function figure(text: string, options: Plot.PlotOptions): string {
  const title = document.createElement("h3");
  title.textContent = text;
  return Plot.plot({ document, figure: true, title, width: WIDTH, style: FONT, ...options }).outerHTML;
}

/**
 * Makes a logarithmic axis from a round number below the least value to one above the most. A bar needs a foot, and a
 * logarithm has no zero.
 */
function logAxis(values: readonly number[]): { domain: [number, number]; ticks: number[] } {
  const [least, most] = values.length > 0 ? [Math.min(...values), Math.max(...values)] : [1, 10];
  const steps = most / least > 1e3 ? [1] : [1, 2, 5];
  const exponents = Array.from({ length: 40 }, (_, index) => index - 15);
  const round = exponents.flatMap((exponent) => steps.map((step) => Number(`${step}e${exponent}`)));
  const low = round.findLast((one) => one <= least / 1.2) ?? least / 2;
  const high = round.find((one) => one >= most) ?? most;
  return { domain: [low, high], ticks: round.filter((one) => one >= low && one <= high) };
}

/** Draws one figure of every contender as bars, workload by workload. */
export function bars(
  text: string,
  unit: string,
  cells: readonly CellSummary[],
  of: (one: CellSummary) => Spread,
): string {
  const contenders = unique(cells.map(({ contender }) => contender));
  const drawn = cells
    .map((cell) => ({ ...cell, median: of(cell).median }))
    .filter(({ median }) => Number.isFinite(median) && median > 0);
  // the axis is logarithmic, since the slowest would hide all others on a linear one
  const { domain, ticks } = logAxis(drawn.map(({ median }) => median));
  return figure(text, {
    ...{ height: 340, marginLeft: 55, marginTop: 28, marginBottom: 35 },
    fx: { domain: unique(cells.map(({ workload }) => workload)), label: null, axis: "bottom", padding: 0.08 },
    x: { domain: contenders, axis: null, padding: 0.1 },
    y: { type: "log", domain, label: unit },
    color: named(contenders),
    ...(drawn.every(({ completed }) => completed) ? {} : { caption: "Hollow: it did not come to its end." }),
    marks: [
      Plot.gridY(ticks),
      // Plot itself would label only some ticks of a logarithmic axis
      Plot.axisY(ticks, { text: short }),
      Plot.barY(drawn, {
        ...{ fx: "workload", x: "contender", y1: domain[0], y2: "median", fill: "contender", stroke: "contender" },
        fillOpacity: ({ completed }) => (completed ? 1 : 0.15),
        title: ({ workload, contender, median, completed }) =>
          `${workload}, ${contender}: ${short(median)} ${unit}${completed ? "" : ", no end"}`,
      }),
    ],
  });
}

/** Draws the legend of a continuous colour scale. Plot's own legend needs a canvas. */
function ramp(label: string, type: "log" | "symlog", color: Plot.ScaleOptions, ticks: readonly number[]) {
  const parts = 60;
  const domain = color.domain as [number, number];
  const { invert } = Plot.scale({ x: { type, domain, range: [0, parts] } });
  const at = (part: number): number => invert?.(part);
  return Plot.plot({
    ...{ document, width: 420, height: 62, marginLeft: 20, marginRight: 20, marginTop: 26, marginBottom: 20 },
    style: FONT,
    x: { type, domain, ticks, tickFormat: short, label, labelAnchor: "left", labelArrow: "none", labelOffset: -26 },
    color,
    marks: [
      Plot.rect(Array.from({ length: parts }).keys(), {
        ...{ x1: at, x2: (part: number) => at(part + 1), fill: (part: number) => at(part + 0.5) },
        shapeRendering: "crispEdges",
      }),
    ],
  });
}

/** Draws a map of ratios by two axes of names. A ratio below 1 is better. */
export function ratioMap(
  text: string,
  rows: readonly string[],
  columns: readonly string[],
  at: (row: string, column: string) => number | undefined,
): string {
  const all = rows.flatMap((row) => columns.map((column) => ({ row, column, ratio: at(row, column) ?? Number.NaN })));
  const known = all.filter(({ ratio }) => Number.isFinite(ratio));
  const unknown = all.filter(({ ratio }) => !Number.isFinite(ratio));
  const place = { x: "column", y: "row" };
  return figure(text, {
    ...{ height: 70 + 28 * rows.length, marginLeft: 110, marginTop: 10, marginBottom: 60 },
    subtitle: ramp("Ratio: below 1 is better, – where there is none", "log", RATIO, [0.25, 0.5, 1, 2, 4]),
    x: { domain: columns, label: null, padding: 0.03 },
    y: { domain: rows, label: null, padding: 0.06 },
    color: RATIO,
    marks: [
      Plot.axisX({ lineWidth: 4.6, tickSize: 0 }),
      Plot.cell(known, {
        ...{ ...place, fill: ({ ratio }) => Math.max(ratio, Number.MIN_VALUE) },
        title: ({ row, column, ratio }) => `${row}, ${column}: ${ratio.toFixed(2)}`,
      }),
      Plot.text(unknown, { ...place, text: () => "–" }),
      Plot.text(known, {
        ...{ ...place, text: ({ ratio }) => ratio.toFixed(2) },
        fill: ({ ratio }) => (ratio < 0.4 || ratio > 2.5 ? "#fff" : "#000"),
      }),
    ],
  });
}

export interface Line {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** Draws lines over linear axes. A line of fewer than 12 points has dots too. */
export function lines(text: string, x: string, y: string, all: readonly Line[]): string {
  const points = all.flatMap(({ name, points }, series) =>
    points.map(([px, py]) => ({ name, series, px, py, dotted: points.length < 12 })),
  );
  return figure(text, {
    ...{ height: 340, marginLeft: 60, marginTop: 28, marginBottom: 40 },
    x: { type: "linear", zero: true, label: x },
    y: { type: "linear", zero: true, nice: true, label: y, grid: true, tickFormat: short },
    color: named(unique(all.map(({ name }) => name))),
    marks: [
      Plot.ruleY([0]),
      Plot.line(points, { x: "px", y: "py", z: "series", stroke: "name", title: "name" }),
      Plot.dot(points, {
        ...{ filter: "dotted", x: "px", y: "py", fill: "name", r: 3 },
        title: ({ name, px, py }) => `${name}: ${short(py)} at ${short(px)}`,
      }),
    ],
  });
}

/** Draws how many pages each heat class has over the time of a migration. */
export function heatOverTime(text: string, columns: readonly { seconds: number; heat: readonly number[] }[]): string {
  const classes = Math.max(0, ...columns.map(({ heat }) => heat.length));
  const nameOf = (index: number): string => (index === 0 ? "cold" : `heat ${index}`);
  const all = columns.flatMap(({ seconds, heat }, index) => {
    // a column lasts until the next one begins; the last column is as wide as the one before it
    const until = columns[index + 1]?.seconds ?? seconds + (seconds - (columns[index - 1]?.seconds ?? seconds - 1));
    return heat.map((pages, y) => ({ seconds, until, name: nameOf(y), pages }));
  });
  const known = all.filter(({ seconds, until, pages }) => [seconds, until, pages].every(Number.isFinite));
  return figure(text, {
    ...{ height: 70 + 26 * classes, marginLeft: 70, marginTop: 10, marginBottom: 40 },
    subtitle: ramp("Pages", "symlog", PAGES, [0, 10, 100, 1e3, 1e4, 1e5]),
    x: { type: "linear", label: "s" },
    y: { type: "band", domain: Array.from({ length: classes }, (_, index) => nameOf(index)).reverse(), label: null },
    color: PAGES,
    marks: [
      Plot.barX(known, {
        ...{ x1: "seconds", x2: "until", y: "name", fill: "pages", shapeRendering: "crispEdges" },
        title: ({ seconds, name, pages }) => `${seconds.toFixed(1)} s, ${name}: ${short(pages)} pages`,
      }),
    ],
  });
}
