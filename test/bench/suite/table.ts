/** Prints the figures of a run as tables for the terminal, one for each workload and link. */
import { LINKS } from "./links.ts";
import type { Line } from "./sample.ts";
import { type CellSummary, limitsOf, machineText, physicalSeconds, type Spread, summarise } from "./summary.ts";

const HEAD = ["", "total", "down", "stall", "wire", "slow-down", "CPU: QEMUs", "agents", "agents' peak"];
const WIDTHS = [22, 20, 16, 16, 15, 10, 11, 13, 13];

export function tableOf(lines: readonly Line[]): string {
  const limits = limitsOf(lines);
  const cells = summarise(lines);
  const groups = new Map<string, CellSummary[]>();
  for (const cell of cells) {
    const key = `${cell.workload} over ${cell.link}`;
    groups.set(key, [...(groups.get(key) ?? []), cell]);
  }
  const parts = [...groups].map(([title, group]) => {
    const [{ workload, link }] = group as [CellSummary, ...CellSummary[]];
    const limit = limits.get(workload);
    const seconds = physicalSeconds(limit, LINKS.get(link)?.bitsPerSecond ?? Number.NaN);
    const physical =
      limit === undefined
        ? ""
        : ` (physical limit: ${megabytes(limit.compressedBytes)}${seconds > 0 ? `, ${seconds.toFixed(2)} s` : ""})`;
    return [`${title}${physical}`, line(HEAD), ...group.map(row)].join("\n");
  });
  const machine = machineText(lines);
  return `${parts.join("\n\n")}\n\nMedians, and in brackets the least and the most. Down: STOP to RESUME; stall: longest pause of a running guest by its own clock.\n${machine === "" ? "" : `${machine}\n`}`;
}

function row(cell: CellSummary): string {
  const { contender, completed, totalSeconds, downtimeMs, stallMs, bytes, slowDown, ended } = cell;
  const agents = cell.sourceAgentCpuSeconds.median + cell.destinationAgentCpuSeconds.median;
  const byFerry = contender.startsWith("ferry");
  return line([
    `${contender}${ended.includes("postcopy") && !/postcopy/.test(contender) ? " *" : ""}`,
    completed ? spread(totalSeconds, 2, "s") : `not in ${totalSeconds.most.toFixed(0)} s`,
    spread(downtimeMs, 0, "ms"),
    spread(stallMs, 0, "ms"),
    spread({ median: bytes.median / 1e6, least: bytes.least / 1e6, most: bytes.most / 1e6 }, 0, "MB"),
    Number.isNaN(slowDown.median) ? "–" : `${(100 * slowDown.median).toFixed(0)} %`,
    `${cell.qemuCpuSeconds.median.toFixed(2)} s`,
    byFerry ? `${agents.toFixed(2)} s` : "–",
    byFerry ? megabytes(cell.agentPeakBytes.median) : "–",
  ]);
}

const line = (fields: readonly string[]): string =>
  fields
    .map((field, index) => (index === 0 ? field.padEnd(WIDTHS[0] ?? 0) : field.padStart(WIDTHS[index] ?? 0)))
    .join(" ");

function spread({ median, least, most }: Spread, digits: number, unit: string): string {
  if (Number.isNaN(median)) return "–";
  return `${median.toFixed(digits)} ${unit} (${least.toFixed(digits)}–${most.toFixed(digits)})`;
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`;
