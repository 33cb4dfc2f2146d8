/** The bars that Ferry is to meet, as ratios of medians within one run, and whether each cell meets them. */
import { median } from "../measure.ts";
import { LINKS } from "./links.ts";
import type { Line } from "./sample.ts";
import { type CellSummary, summarise } from "./summary.ts";

export interface Verdict {
  readonly bar: string;
  readonly workload: string;
  readonly link: string;
  readonly met: boolean;
  /** What was measured, and what the bar asks. */
  readonly text: string;
}

const TIME_MOST = 0.8;
const TIME_OF_XBZRLE_MOST = 0.5;
const BYTES_MOST = 0.7;
const BYTES_INCOMPRESSIBLE_MOST = 1.05;
const DOWNTIME_MOST = 1.5;
const DOWNTIME_MS_MOST = 60;
const FAST_LINK_MOST = 1.2;
const LINK_USED_LEAST = 0.9;
const CPU_A_GB_MOST = 1;
const SLOW_DOWN_MORE = 0.05;

/** Links that limit the migration by their rate. On the fast links the processors limit it. */
const SHAPED = ["1Gbit", "100Mbit"];
const FAST = ["10Gbit", "unshaped"];
/** Workloads whose pages do not compress, and for which deltas are of no use. */
const INCOMPRESSIBLE = ["incompressible", "streaming"];

/** The cells of one workload over one link. */
interface Field {
  readonly workload: string;
  readonly link: string;
  readonly of: (contender: string) => CellSummary | undefined;
  readonly qemus: readonly CellSummary[];
  /** Ferry as a user has it who asks for a plan (auto), or precopy if auto was not measured. */
  readonly ferry: CellSummary;
}

/** Holds the samples of a run against the bars. @returns a verdict for each bar that applies to a workload and link */
export function judge(lines: readonly Line[]): readonly Verdict[] {
  const cells = summarise(lines);
  const names = new Set(cells.map(({ workload, link }) => JSON.stringify([workload, link])));
  return [...names].flatMap((name) => {
    const [workload, link] = JSON.parse(name) as [string, string];
    const here = cells.filter((one) => one.workload === workload && one.link === link);
    const of = (contender: string): CellSummary | undefined => here.find((one) => one.contender === contender);
    const ferry = of("ferry auto") ?? of("ferry");
    if (ferry === undefined) return [];
    const qemus = here.filter((one) => one.contender.startsWith("qemu") && one.completed);
    const field: Field = { workload, link, of, qemus, ferry };
    return BARS.flatMap((bar) => bar(field));
  });
}

type Bar = (field: Field) => readonly Verdict[];

const verdict = ({ workload, link }: Field, bar: string, value: number, most: number, text: string): Verdict => ({
  bar,
  workload,
  link,
  met: value <= most,
  text,
});

const best = (cells: readonly CellSummary[], of: (one: CellSummary) => number): CellSummary | undefined =>
  [...cells].filter((one) => !Number.isNaN(of(one))).sort((one, other) => of(one) - of(other))[0];

function ratio(
  field: Field,
  bar: string,
  peer: CellSummary | undefined,
  of: (one: CellSummary) => number,
  most: number,
) {
  if (peer === undefined || of(peer) === 0) return [];
  if (!field.ferry.completed)
    return [verdict(field, bar, Number.POSITIVE_INFINITY, most, `${field.ferry.contender} came to no end`)];
  const value = of(field.ferry) / of(peer);
  return [verdict(field, bar, value, most, `${value.toFixed(2)} x ${peer.contender}, at most ${most}`)];
}

const seconds = (one: CellSummary): number => one.totalSeconds.median;
const bytes = (one: CellSummary): number => one.bytes.median;
const down = (one: CellSummary): number => one.downtimeMs.median;

const BARS: readonly Bar[] = [
  (field) =>
    SHAPED.includes(field.link) ? ratio(field, "total time", best(field.qemus, seconds), seconds, TIME_MOST) : [],
  (field) =>
    SHAPED.includes(field.link) && ["sparse", "zipf"].includes(field.workload)
      ? ratio(field, "total time beside xbzrle", field.of("qemu xbzrle"), seconds, TIME_OF_XBZRLE_MOST)
      : [],
  (field) => {
    const most = INCOMPRESSIBLE.includes(field.workload) ? BYTES_INCOMPRESSIBLE_MOST : BYTES_MOST;
    return SHAPED.includes(field.link) ? ratio(field, "bytes", best(field.qemus, bytes), bytes, most) : [];
  },
  (field) => {
    const least = best(field.qemus, down);
    if (!SHAPED.includes(field.link) || least === undefined || !field.ferry.completed) return [];
    const [mine, theirs] = [down(field.ferry), down(least)];
    const text = `${mine.toFixed(0)} ms, ${least.contender} ${theirs.toFixed(0)} ms`;
    return [
      verdict(
        field,
        "downtime beside QEMU's least",
        mine / theirs,
        DOWNTIME_MOST,
        `${text}, at most ${DOWNTIME_MOST} x`,
      ),
      verdict(field, "downtime", mine, DOWNTIME_MS_MOST, `${text}, at most ${DOWNTIME_MS_MOST} ms`),
    ];
  },
  (field) =>
    FAST.includes(field.link) ? ratio(field, "total time", field.of("qemu precopy"), seconds, FAST_LINK_MOST) : [],
  (field) => {
    const { bitsPerSecond = 0, roundTripMs = 0 } = LINKS.get(field.link) ?? {};
    const used =
      roundTripMs > 0 && INCOMPRESSIBLE.includes(field.workload) ? linkUse(field.ferry, bitsPerSecond) : undefined;
    if (used === undefined) return [];
    const text = `${used.toFixed(2)} of the link used while copying, at least ${LINK_USED_LEAST}`;
    return [verdict(field, "use of a long link", -used, -LINK_USED_LEAST, text)];
  },
  (field) => {
    const plain = field.of("ferry no zstd");
    const moved = plain?.samples.map((one) => one.cpuSeconds["source agent"] / ((one.movedBytes ?? Number.NaN) / 1e9));
    const value = median(moved ?? []);
    if (Number.isNaN(value)) return [];
    const text = `${value.toFixed(2)} CPU s a GB, at most ${CPU_A_GB_MOST}`;
    return [verdict(field, "source agent's CPU time without zstd", value, CPU_A_GB_MOST, text)];
  },
  (field) => {
    const plain = field.of("qemu precopy");
    const [mine, theirs] = [field.ferry.slowDown.median, plain?.slowDown.median];
    if (theirs === undefined || Number.isNaN(mine) || Number.isNaN(theirs)) return [];
    const text = `${(100 * mine).toFixed(0)} %, qemu precopy ${(100 * theirs).toFixed(0)} %, at most 5 points more`;
    return [verdict(field, "the guest's slow-down", mine - theirs, SLOW_DOWN_MORE, text)];
  },
];

/**
 * The fraction of the link's rate that was used between the first report in which bytes were sent and the last report
 * of a migration.
 * @returns the median of the samples
 */
function linkUse({ samples }: CellSummary, bitsPerSecond: number): number | undefined {
  const uses = samples.flatMap(({ residual = [] }) => {
    const [first, last] = [residual.find(({ sentBytes = 0 }) => sentBytes > 0), residual.at(-1)];
    if (first?.sentBytes === undefined || last?.sentBytes === undefined || last.seconds <= first.seconds) return [];
    return [(8 * (last.sentBytes - first.sentBytes)) / (last.seconds - first.seconds) / bitsPerSecond];
  });
  return uses.length === 0 ? undefined : median(uses);
}
