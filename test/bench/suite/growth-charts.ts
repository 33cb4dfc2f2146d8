/** Draws what of a migration grows with its guest: total time, CPU time and memory, by guest size and by dirty rate. */
import { lines } from "./charts.ts";
import type { LimitLine } from "./sample.ts";
import type { CellSummary } from "./summary.ts";

const UNITS = [
  { unit: "MiB", what: "size of the guest, MiB" },
  { unit: "MB/s", what: "dirty rate, MB/s" },
] as const;

export function growthCharts(cells: readonly CellSummary[], limits: ReadonlyMap<string, LimitLine>): string[] {
  if (cells.length === 0) return [];
  const gigabytes = ({ workload }: CellSummary): number =>
    ((limits.get(workload)?.memoryMiB ?? Number.NaN) * 2 ** 20) / 1e9;
  const agentCpu = (one: CellSummary): number =>
    one.sourceAgentCpuSeconds.median + one.destinationAgentCpuSeconds.median;
  // `everyone`: true for figures that QEMU has too
  const figures: readonly [title: string, unit: string, of: (one: CellSummary) => number, everyone: boolean][] = [
    ["Total time", "s", (one) => one.totalSeconds.median, true],
    ["Total time a GB of the guest's memory", "s/GB", (one) => one.totalSeconds.median / gigabytes(one), true],
    ["CPU time of both agents a GB", "s/GB", (one) => agentCpu(one) / gigabytes(one), false],
    ["Peak memory of the larger agent", "MB", (one) => one.agentPeakBytes.median / 1e6, false],
    ["Downtime", "ms", (one) => one.downtimeMs.median, true],
  ];
  const charts = UNITS.flatMap(({ unit, what }) => {
    const mine = cells.filter(({ workload }) => workload.endsWith(` ${unit}`));
    if (mine.length === 0) return [];
    const contenders = [...new Set(mine.map(({ contender }) => contender))];
    return figures.map(([title, of, figure, everyone]) =>
      lines(
        `${title} by ${what}`,
        what,
        of,
        contenders
          .filter((one) => everyone || one.startsWith("ferry"))
          .map((name) => ({
            name,
            points: mine
              .filter(({ contender, completed }) => contender === name && completed)
              .map((one) => [Number.parseFloat(one.workload), figure(one)] as const),
          })),
      ),
    );
  });
  return ["<h2>Growth</h2>", ...charts];
}
