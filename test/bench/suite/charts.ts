/** The plots of the report, as SVG: drawn by ECharts without a browser, so that the page needs no script. */
import { type EChartsOption, init } from "echarts";
import type { CellSummary, Spread } from "./summary.ts";

const WIDTH = 1080;
/** Of a name that is on an axis a link may stand on its own: enough to read it aslant. */
const GRID = { left: 70, right: 20, top: 60, bottom: 60 };

export function svg(option: EChartsOption, height = 360): string {
  const chart = init(undefined, undefined, { renderer: "svg", ssr: true, width: WIDTH, height });
  try {
    chart.setOption({ animation: false, grid: GRID, legend: { top: 25, type: "scroll" }, ...option });
    return chart.renderToSVGString();
  } finally {
    chart.dispose();
  }
}

const unique = (names: readonly string[]): string[] => [...new Set(names)];
const title = (text: string) => ({ text, left: "center", textStyle: { fontSize: 14 } });
/** What cannot be drawn is left out. */
const value = (figure: number, digits = 3): number | null =>
  Number.isFinite(figure) ? Number(figure.toPrecision(digits)) : null;

/** A figure of every contender, workload by workload. */
export function bars(
  text: string,
  unit: string,
  cells: readonly CellSummary[],
  of: (one: CellSummary) => Spread,
): string {
  const workloads = unique(cells.map(({ workload }) => workload));
  const contenders = unique(cells.map(({ contender }) => contender));
  const find = (workload: string, contender: string): CellSummary | undefined =>
    cells.find((one) => one.workload === workload && one.contender === contender);
  return svg({
    title: title(text),
    xAxis: { type: "category", data: workloads },
    // a logarithm: the slowest would hide all others
    yAxis: { type: "log", name: unit, min: "dataMin" },
    series: contenders.map((contender) => ({
      name: contender,
      type: "bar",
      data: workloads.map((workload) => {
        const cell = find(workload, contender);
        if (cell === undefined) return null;
        // hollow: it did not come to its end
        return { value: value(of(cell).median), itemStyle: cell.completed ? {} : { opacity: 0.25 } };
      }),
    })),
  });
}

/** Ratios of two axes of names: below 1 is better. */
export function ratioMap(
  text: string,
  rows: readonly string[],
  columns: readonly string[],
  at: (row: string, column: string) => number | undefined,
): string {
  const data = rows.flatMap((row, y) =>
    columns.flatMap((column, x) => {
      const ratio = at(row, column);
      return ratio === undefined || !Number.isFinite(ratio) ? [] : [[x, y, Number(ratio.toFixed(2))]];
    }),
  );
  return svg(
    {
      title: title(text),
      legend: { show: false },
      grid: { left: 140, right: 20, top: 40, bottom: 100 },
      xAxis: { type: "category", data: [...columns], axisLabel: { rotate: 30 } },
      yAxis: { type: "category", data: [...rows], inverse: true },
      visualMap: {
        ...{ type: "continuous", min: 0, max: 2, calculable: false, orient: "horizontal", left: "center", bottom: 0 },
        inRange: { color: ["#1a9850", "#d9ef8b", "#ffffff", "#fdae61", "#d73027"] },
      },
      series: [{ type: "heatmap", data, label: { show: true } }],
    },
    140 + 28 * rows.length,
  );
}

export interface Line {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

export function lines(text: string, x: string, y: string, all: readonly Line[]): string {
  return svg({
    title: title(text),
    xAxis: { type: "value", name: x, nameLocation: "middle", nameGap: 25 },
    yAxis: { type: "value", name: y },
    series: all.map(({ name, points }) => ({
      name,
      type: "line",
      showSymbol: points.length < 12,
      data: points.map(([px, py]) => [value(px), value(py)]),
    })),
  });
}

/** Pages of each heat class over the time of a migration. */
export function heatOverTime(text: string, columns: readonly { seconds: number; heat: readonly number[] }[]): string {
  const classes = Math.max(0, ...columns.map(({ heat }) => heat.length));
  const data = columns.flatMap(({ heat }, x) => heat.map((pages, y) => [x, y, Math.log10(1 + pages)]));
  return svg(
    {
      title: title(text),
      legend: { show: false },
      grid: { left: 90, right: 20, top: 40, bottom: 90 },
      xAxis: { type: "category", data: columns.map(({ seconds }) => seconds.toFixed(1)), name: "s" },
      yAxis: {
        type: "category",
        data: Array.from({ length: classes }, (_, index) => (index === 0 ? "cold" : `heat ${index}`)),
      },
      visualMap: {
        ...{ type: "continuous", min: 0, max: 5.2, orient: "horizontal", left: "center", bottom: 0 },
        ...{ text: ["130 000 pages", "0"], inRange: { color: ["#ffffff", "#fee08b", "#f46d43", "#7f0000"] } },
      },
      series: [{ type: "heatmap", data }],
    },
    120 + 26 * classes,
  );
}
