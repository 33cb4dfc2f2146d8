/**
 * Makes a page of HTML of a run: plots of total time, downtime, bytes, residual and heat, the verdicts on the bars, and
 * every figure.
 */
import type { Verdict } from "./bars.ts";
import { bars, heatOverTime, lines as lineChart, ratioMap } from "./charts.ts";
import { growthCharts } from "./growth-charts.ts";
import { LINKS } from "./links.ts";
import type { Line } from "./sample.ts";
import { type CellSummary, limitsOf, physicalSeconds, summarise } from "./summary.ts";
import { tableOf } from "./table.ts";
import { GROWTH, WORKLOADS } from "./workloads.ts";

const STYLE = `body{font:15px/1.45 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:13px}td,th{padding:2px 10px;border-bottom:1px solid #ddd;text-align:left}
pre{font-size:12px;overflow-x:auto}.no{color:#b00;font-weight:600}.yes{color:#070}figure{margin:2em 0}figcaption{font-size:13px}`;

const inHtml = (text: string): string =>
  text.replace(/[&<>"]/g, (one) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[one] ?? one);

export function reportOf(all: readonly Line[], verdicts: readonly Verdict[]): string {
  const cells = summarise(all);
  const header = all.find((line) => line.kind === "header");
  const standard = cells.filter(({ workload }) => WORKLOADS.has(workload));
  const links = [...new Set(standard.map(({ link }) => link))];
  const parts = [
    `<h1>Ferry beside QEMU: ${inHtml(header?.suite ?? "")}</h1>`,
    header === undefined
      ? ""
      : `<p>${inHtml(`${header.startedAt}, ${header.commit}; ${header.processors} x ${header.processor}, QEMU ${header.qemu}, ${header.accelerator}. Both QEMUs, both agents and the guest share them.`)}</p>`,
    workloadList(cells),
    verdictTable(verdicts),
    ...links.flatMap((link) =>
      linkCharts(
        link,
        standard.filter((one) => one.link === link),
        all,
      ),
    ),
    ablation(standard),
    ...growthCharts(
      cells.filter(({ workload }) => GROWTH.has(workload)),
      limitsOf(all),
    ),
    `<h2>Every cell</h2><pre>${inHtml(tableOf(all))}</pre>`,
  ];
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>Ferry beside QEMU</title><style>${STYLE}</style><body>${parts.join("\n")}</body></html>\n`;
}

function workloadList(cells: readonly CellSummary[]): string {
  const known = new Map([...WORKLOADS, ...GROWTH]);
  const rows = [...new Set(cells.map(({ workload }) => workload))].map(
    (name) => `<tr><td>${inHtml(name)}<td>${inHtml(known.get(name)?.what ?? "")}`,
  );
  return `<h2>Workloads</h2><table>${rows.join("")}</table>`;
}

function verdictTable(verdicts: readonly Verdict[]): string {
  if (verdicts.length === 0) return "";
  const rows = [...verdicts]
    .sort((one, other) => Number(one.met) - Number(other.met))
    .map(
      ({ bar, workload, link, met, text }) =>
        `<tr><td class="${met ? "yes" : "no"}">${met ? "met" : "not met"}<td>${inHtml(bar)}<td>${inHtml(workload)}<td>${inHtml(link)}<td>${inHtml(text)}`,
    );
  const met = verdicts.filter((one) => one.met).length;
  return `<h2>Bars: ${met} of ${verdicts.length} met</h2><table>${rows.join("")}</table>`;
}

function linkCharts(link: string, cells: readonly CellSummary[], all: readonly Line[]): string[] {
  const limits = limitsOf(all);
  const bits = LINKS.get(link)?.bitsPerSecond ?? Number.NaN;
  const workloads = [...new Set(cells.map(({ workload }) => workload))];
  const contenders = [...new Set(cells.map(({ contender }) => contender))];
  const find = (workload: string, contender: string): CellSummary | undefined =>
    cells.find((one) => one.workload === workload && one.contender === contender);
  const bestQemu = (workload: string): number =>
    Math.min(
      ...cells
        .filter((one) => one.workload === workload && one.contender.startsWith("qemu") && one.completed)
        .map((one) => one.totalSeconds.median),
    );
  const physical = workloads
    .map((name) => `${name} ${physicalSeconds(limits.get(name), bits).toFixed(2)} s`)
    .join(", ");
  return [
    `<h2>${inHtml(link)}</h2>`,
    Number.isFinite(bits) ? `<p>Physical limit: ${inHtml(physical)}</p>` : "",
    ratioMap(
      `Total time beside the best QEMU that comes to its end, ${link}`,
      workloads,
      contenders,
      (workload, contender) => {
        const cell = find(workload, contender);
        // where no QEMU comes to its end there is nothing to compare with
        return cell?.completed === true && Number.isFinite(bestQemu(workload))
          ? cell.totalSeconds.median / bestQemu(workload)
          : undefined;
      },
    ),
    bars(`Total time, ${link}`, "s", cells, (one) => one.totalSeconds),
    bars(`Downtime, ${link}`, "ms", cells, (one) => one.downtimeMs),
    bars(`Longest pause that the running guest saw, ${link}`, "ms", cells, (one) => one.stallMs),
    bars(`Bytes on the link, ${link}`, "B", cells, (one) => one.bytes),
    ...workloads.flatMap((workload) =>
      overTime(
        workload,
        link,
        cells.filter((one) => one.workload === workload),
      ),
    ),
  ];
}

function overTime(workload: string, link: string, cells: readonly CellSummary[]): string[] {
  const first = cells.flatMap(({ contender, samples }) => {
    const points = samples.find(({ repetition }) => repetition === 1)?.residual;
    return points === undefined ? [] : [{ contender, points }];
  });
  const residual = lineChart(
    `Left to send over time: ${workload}, ${link} (QEMU: whole pages; Ferry: as it will send them)`,
    "s",
    "MB",
    first.map(({ contender, points }) => ({
      name: contender,
      points: points.map(({ seconds, bytes }) => [seconds, bytes / 1e6] as const),
    })),
  );
  const heat = first
    .find(({ contender }) => contender === "ferry")
    ?.points.flatMap(({ seconds, heat }) => (heat === undefined || heat.length === 0 ? [] : [{ seconds, heat }]));
  return heat === undefined || heat.length < 2
    ? [residual]
    : [residual, heatOverTime(`Pages by heat over time, as Ferry sees them: ${workload}, ${link}`, heat)];
}

const WITHOUT = ["ferry", "ferry no delta", "ferry no reorder", "ferry neither", "ferry no zstd"];

/**
 * Makes a table that shows what each part of Ferry brings: Ferry without the part, compared with the whole of Ferry.
 */
function ablation(cells: readonly CellSummary[]): string {
  const rows: string[] = [];
  for (const cell of cells.filter(({ contender }) => contender === "ferry"))
    for (const name of WITHOUT) {
      const other = cells.find(
        (one) => one.contender === name && one.workload === cell.workload && one.link === cell.link,
      );
      if (other === undefined) continue;
      const times = (of: (one: CellSummary) => number): string => `${(of(other) / of(cell)).toFixed(2)} x`;
      rows.push(
        `<tr><td>${inHtml(cell.workload)}<td>${inHtml(cell.link)}<td>${inHtml(name)}<td>${other.completed ? `${other.totalSeconds.median.toFixed(2)} s` : "no end"}<td>${times((one) => one.totalSeconds.median)}<td>${times((one) => one.bytes.median)}<td>${times((one) => one.downtimeMs.median)}`,
      );
    }
  if (rows.length === 0) return "";
  return `<h2>What each part brings</h2><table><tr><th>workload<th>link<th>contender<th>total<th>total, times Ferry<th>bytes<th>downtime</tr>${rows.join("")}</table>`;
}
