/**
 * The summary of a migration for people: how it stands or ended, what to do, and its result. Everything here is pure.
 */
import type {
  BytesByKind,
  Downtime,
  MigrationResult,
  MigrationView,
  PageCounts,
  PostcopyResult,
} from "../shared/protocol/report.ts";
import { alarmLines } from "./alarm.ts";
import { bytesText, countText, durationText, memoryText, printable, ratioText } from "./figures.ts";
import { statusText } from "./progress-bar.ts";

/** Makes the summary: lines that each end with a newline. */
export function summaryText(view: MigrationView): string {
  const lines = view.status === "doubled" ? [...alarmLines(view)] : [headline(view)];
  if (view.error !== undefined) {
    const { error } = view;
    lines.push(row("error", `${printable(error.code)}: ${printable(error.message)}`));
    for (const refusal of error.refusals)
      lines.push(row("", `- ${printable(refusal.code)}: ${printable(refusal.message)}`));
    if (error.guestNow !== "") lines.push(row("guest", printable(error.guestNow)));
    // the alarm has said the advice already
    if (error.advice !== "" && view.status !== "doubled") lines.push(row("what to do", printable(error.advice)));
  }
  const word = resolveText(view);
  if (word !== undefined) lines.push(row("resolve", word));
  if (view.result !== undefined) lines.push(...resultLines(view.result), row("agreed", agreedText(view.negotiated)));
  return `${lines.join("\n")}\n`;
}

/**
 * Returns the command with which the operator's word would end the migration. It is undefined for a status that waits
 * for no word, and for a doubt at a destination agent, whose advice names the command.
 */
function resolveText({ id: given, status, source }: MigrationView): string | undefined {
  const id = printable(given);
  const incoming = source === undefined ? undefined : printable(source);
  switch (status) {
    case "inDoubt":
      // the advice of a destination agent names the words that it takes, which depend on what it has of the guest
      return incoming === undefined
        ? `ferry resolve ${id} --keep source|destination, once you know where it may run`
        : undefined;
    case "undoing":
      return incoming === undefined
        ? undefined
        : `if ${incoming} never comes back: ferry resolve ${id} --keep destination runs it here, --keep source ends the copy`;
    case "doubled": {
      const agent = incoming === undefined ? "" : `--agent ${incoming} `;
      return `ferry ${agent}resolve ${id} --keep destination, to end the copy at the source`;
    }
    default:
      return undefined;
  }
}

const agreedText = (negotiated: MigrationView["negotiated"]): string =>
  Object.entries(negotiated)
    .map(([name, value]) => `${printable(name)} ${printable(value)}`)
    .join("; ");

function headline(view: MigrationView): string {
  const guest = printable(view.guest);
  const to = printable(view.destination);
  const total = durationText((view.result?.totalSeconds ?? view.progress.elapsedSeconds) * 1000);
  if (view.source !== undefined) return incomingHeadline(view, guest, printable(view.source), total);
  switch (view.status) {
    case "moved":
      return `${guest} moved to ${to} in ${total}`;
    case "failed":
      return `${guest} was not moved to ${to}`;
    case "cancelled":
      return `${guest} stays: its migration to ${to} was cancelled after ${total}`;
    case "inDoubt":
      return `${guest} is in doubt: it was granted to ${to}, which cannot be asked`;
    default:
      return `${guest} to ${to}: ${statusText(view)} for ${total} (migration ${printable(view.id)})`;
  }
}

function incomingHeadline(view: MigrationView, guest: string, from: string, total: string): string {
  switch (view.status) {
    case "moved":
      return `${guest} arrived from ${from} in ${total}`;
    case "failed":
      return `${guest} is not here: its migration from ${from} failed`;
    case "cancelled":
      return `${guest} is not here: its migration from ${from} was cancelled after ${total}`;
    case "inDoubt":
      return `${guest} is in doubt here: its migration from ${from} may need your decision`;
    default:
      return `${guest} from ${from}: ${statusText(view)}, for ${total} (migration ${printable(view.id)})`;
  }
}

const LABEL_COLUMNS = 12;

const row = (label: string, text: string): string => `  ${label.padEnd(LABEL_COLUMNS)} ${text}`;

function resultLines(result: MigrationResult): string[] {
  const lines: string[] = [];
  if (result.completed) lines.push(row("downtime", result.paused ? WAS_PAUSED : downtimeText(result.downtime)));
  if (result.switchReason !== "") lines.push(row("switched", printable(result.switchReason)));
  if (result.stalledSeconds > 0)
    lines.push(row("stalled", `it did not converge for ${durationText(1000 * result.stalledSeconds)}`));
  if (result.postcopy !== undefined) lines.push(row("post-copy", postcopyText(result.postcopy)));
  lines.push(
    row("sent", bytesByKindText(result.bytes)),
    row("pages", pagesText(result.pages)),
    row("ratios", `delta ${ratioText(result.deltaRatio)}, zstd ${ratioText(result.zstdRatio)}`),
    row("bitmap syncs", countText(result.bitmapSyncs)),
    row("agents", agentsText(result)),
  );
  if (result.verified) lines.push(row("verified", `${countText(result.pagesCompared)} pages are identical`));
  for (const exception of result.verifyExceptions) lines.push(row("differs", printable(exception)));
  for (const degradation of result.degradations) lines.push(row("degraded", printable(degradation)));
  return lines;
}

const WAS_PAUSED = "none: the guest was paused, and still is";

function downtimeText(downtime: Downtime): string {
  const parts = [
    `last pages ${durationText(downtime.lastPagesMs)}`,
    `device state ${durationText(downtime.deviceStateMs)}`,
    `load ${durationText(downtime.loadMs)}`,
    ...(downtime.verifyMs > 0 ? [`verify ${durationText(downtime.verifyMs)}`] : []),
    `commit ${durationText(downtime.commitMs)}`,
  ];
  return `${durationText(downtime.totalMs)} ± ${durationText(downtime.clockErrorMs)}: ${parts.join(", ")}`;
}

function postcopyText(postcopy: PostcopyResult): string {
  const rest = `the last page came ${durationText(1000 * postcopy.seconds)} after the guest ran there`;
  if (postcopy.requestedPages === 0) return `${rest}; it waited for none`;
  const { serviceMedianMs, serviceP99Ms, serviceMaxMs } = postcopy;
  const [median, p99, longest] = [serviceMedianMs, serviceP99Ms, serviceMaxMs].map(durationText);
  return `${rest}; it waited for ${countText(postcopy.requestedPages)}: median ${median}, p99 ${p99}, longest ${longest}`;
}

function bytesByKindText(bytes: BytesByKind): string {
  const kinds = (["full", "delta", "zero", "device", "other"] as const).map(
    (kind) => `${kind} ${bytesText(bytes[kind])}`,
  );
  return `${bytesText(bytes.total)}: ${kinds.join(", ")}`;
}

function pagesText(pages: PageCounts): string {
  const sent = pages.zero + pages.full + pages.delta;
  const kinds = `${countText(pages.full)} full, ${countText(pages.delta)} delta, ${countText(pages.zero)} zero`;
  const spared = `${countText(pages.coalesced)} coalesced, ${countText(pages.skipped)} skipped`;
  return `${countText(pages.captured)} captured, ${countText(sent)} sent (${kinds}), ${spared}`;
}

function agentsText(result: MigrationResult): string {
  const agent = (name: string, cpu: number, peak: number): string =>
    `${name} ${durationText(cpu * 1000)} CPU and ${memoryText(peak)} at most`;
  const source = agent("source", result.sourceAgentCpuSeconds, result.sourceAgentPeakMemoryBytes);
  return `${source}, ${agent("destination", result.destinationAgentCpuSeconds, result.destinationAgentPeakMemoryBytes)}`;
}
