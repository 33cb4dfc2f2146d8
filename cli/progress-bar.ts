/**
 * One line that says how a migration stands, for a terminal or for a log. Everything here is pure; progress-display.ts
 * shows the line.
 */
import type { MigrationStatus, MigrationView, Progress } from "../shared/protocol/report.ts";
import { bytesText, durationText, histogram, percentText, printable, rateText } from "./figures.ts";

type Words = Readonly<Record<MigrationStatus, string>>;

const WORDS: Words = {
  preparing: "preparing",
  copying: "copying",
  switching: "switching over",
  granting: "handing over",
  moved: "moved",
  failed: "failed",
  cancelled: "cancelled",
  inDoubt: "in doubt",
  doubled: "RUNS AT BOTH HOSTS",
  undoing: "going back",
  serving: "fetching the rest",
};

/** The words for a migration that comes to the agent's host. */
const INCOMING_WORDS: Words = {
  ...WORDS,
  copying: "receiving",
  switching: "loading",
  moved: "arrived",
  undoing: "refused, kept until its source has heard it",
};

export const statusText = ({ status, source }: Pick<MigrationView, "status" | "source">): string =>
  (source === undefined ? WORDS : INCOMING_WORDS)[status];

const BAR_CELLS = 20;
const PARTS = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/** Draws a bar in eighths of a cell: "█████▍    ". */
export function barText(fraction: number, cells: number = BAR_CELLS): string {
  const eighths = Math.round(Math.min(Math.max(fraction, 0), 1) * cells * 8);
  const full = Math.floor(eighths / 8);
  return `${"█".repeat(full)}${PARTS[eighths % 8] ?? ""}`.padEnd(cells, " ");
}

interface Segment {
  readonly text: string;
  /** When the line is too narrow, the segments of the largest rank are left out first. */
  readonly rank: number;
}

/** Makes the line for a terminal. @param columns the longest line, in characters */
export function progressLine(view: MigrationView, columns: number): string {
  let segments = segmentsOf(view);
  let line = join(segments);
  while (line.length > columns && segments.length > 1) {
    const worst = Math.max(...segments.map((segment) => segment.rank));
    segments = segments.filter((segment) => segment.rank !== worst);
    line = join(segments);
  }
  return line.slice(0, Math.max(0, columns));
}

const join = (segments: readonly Segment[]): string => segments.map((segment) => segment.text).join("  ");

function segmentsOf(view: MigrationView): Segment[] {
  const { progress, status } = view;
  const segments: Segment[] = [
    { text: printable(view.guest), rank: 3 },
    { text: statusText(view), rank: 0 },
    { text: durationText(progress.elapsedSeconds * 1000), rank: 2 },
  ];
  if (progress.linkDownSeconds > 0) segments.push({ text: linkText(progress.linkDownSeconds), rank: 0 });
  if (progress.stalledSeconds > 0) segments.push({ text: "NOT CONVERGING", rank: 0 });
  // the progress of the copy says nothing in these states, and a destination agent does not measure it
  if (status === "preparing" || status === "doubled" || view.source !== undefined) return segments;
  segments.push(
    { text: `[${barText(progress.firstPassFraction)}]`, rank: 6 },
    { text: percentText(progress.firstPassFraction), rank: 1 },
    { text: rateText(progress.bytesPerSecond), rank: 2 },
    { text: `pass ${progress.passes}`, rank: 5 },
    { text: `residual ${bytesText(progress.estimatedResidualBytes)}`, rank: 4 },
  );
  if (progress.estimatedDowntimeMs > 0)
    segments.push({ text: `downtime ~${durationText(progress.estimatedDowntimeMs)}`, rank: 3 });
  if (progress.etaSeconds !== undefined)
    segments.push({ text: `ETA ${durationText(1000 * progress.etaSeconds)}`, rank: 1 });
  if (progress.stalledSeconds > 0) segments.push({ text: againstText(progress), rank: 5 });
  if (progress.heatClasses.length > 0) segments.push({ text: `heat ${histogram(progress.heatClasses)}`, rank: 7 });
  return segments;
}

const linkText = (seconds: number): string => `LINK DOWN ${durationText(seconds * 1000)}`;

/** Says in figures why the migration does not converge. */
const againstText = ({ downtimeTargetMs, dirtyBytesPerSecond, bytesPerSecond }: Progress): string =>
  `target ${durationText(downtimeTargetMs)}; dirties ${rateText(dirtyBytesPerSecond)}, link takes ${rateText(bytesPerSecond)}`;

const stallText = (progress: Progress): string =>
  `not converging for ${durationText(1000 * progress.stalledSeconds)}: ${durationText(progress.estimatedDowntimeMs)} estimated, ${againstText(progress)}`;

/** Makes the line for a log: one figure after the other, each with its name. */
export function plainLine(view: MigrationView): string {
  const { progress } = view;
  const figures = [
    `${progress.elapsedSeconds.toFixed(1)}s`,
    printable(view.guest),
    statusText(view),
    ...(view.source === undefined ? copyFigures(progress) : []),
    ...(progress.linkDownSeconds > 0 ? [linkText(progress.linkDownSeconds)] : []),
    ...(progress.stalledSeconds > 0 ? [stallText(progress)] : []),
  ];
  return figures.join("  ");
}

function copyFigures(progress: Progress): string[] {
  return [
    `first pass ${percentText(progress.firstPassFraction)}`,
    `passes ${progress.passes}`,
    `sent ${bytesText(progress.bytesSent)}`,
    `rate ${rateText(progress.bytesPerSecond)}`,
    `dirty ${rateText(progress.dirtyBytesPerSecond)}`,
    `residual ${bytesText(progress.estimatedResidualBytes)}`,
    // 0 until the downtime is estimated, and while the guest is paused
    ...(progress.estimatedDowntimeMs > 0 ? [`estimated downtime ${durationText(progress.estimatedDowntimeMs)}`] : []),
    ...(progress.etaSeconds === undefined ? [] : [`ETA ${durationText(1000 * progress.etaSeconds)}`]),
  ];
}
