/** The text of a plan, for people. Everything here is pure. */
import type { IntervalView, ObservationView, PlanView, PredictionView } from "../shared/protocol/plan-view.ts";
import { termLine } from "./agreed-terms.ts";
import { bytesText, durationText, memoryText, printable, rateText, ratioText } from "./figures.ts";
import { table } from "./tables.ts";

export function planText(guest: string, to: string, plan: PlanView): string {
  const lines = plan.accepted
    ? [`${printable(to)} would take ${printable(guest)}`]
    : [`${printable(to)} would not take ${printable(guest)}`];
  for (const refusal of plan.refusals) lines.push(`  - ${printable(refusal.code)}: ${printable(refusal.message)}`);
  for (const [name, value] of Object.entries(plan.negotiated)) lines.push(termLine(name, value));
  for (const note of plan.notes) lines.push(`Note: ${printable(note)}`);
  return `${lines.join("\n")}\n${estimates(plan)}`;
}

function estimates({ link, observation, predictions, recommended, reason }: PlanView): string {
  if (link === undefined || observation === undefined || predictions === undefined) return "";
  const lines = [
    "",
    `Link: ${rateText(link.bytesPerSecond)}, round trip ${durationText(link.roundTripMs)}`,
    ...guestLines(observation),
    costLine(observation),
    "",
  ];
  const rows = table(["STRATEGY", "TOTAL", "DOWNTIME", "SENT", ""], predictions.map(row));
  const advice =
    recommended === undefined ? "" : `\nRecommended: ${recommended}. ${sentence(printable(reason ?? ""))}\n`;
  return `${lines.join("\n")}\n${rows}${advice}`;
}

function guestLines(one: ObservationView): string[] {
  const { memoryBytes, zeroBytes, workingSetBytes, seconds, dirtyBytesPerSecond, zstdRatio, deltaRatio, hostSpeed } =
    one;
  const looked = durationText(1000 * seconds);
  const lines = [
    `Guest: ${memoryText(memoryBytes)}, of these ${memoryText(zeroBytes)} zero; in ${looked} it dirtied ${memoryText(workingSetBytes)}, again and again at ${rateText(dirtyBytesPerSecond)}`,
    `Encoding: zstd ${ratioText(zstdRatio)}, pages that are sent again ${ratioText(deltaRatio)}`,
  ];
  // an older agent does not measure the speed of its host
  if (hostSpeed > 0) lines.push(`Host: ${hostSpeed.toFixed(2)} x the processors that the model's figures are of`);
  return lines;
}

/** Says what looking at the guest cost. Figures that the host did not tell are left out. */
function costLine({ cost }: ObservationView): string {
  const { seconds, agentCpuSeconds, qemuCpuSeconds, processorsWaited, processorsWaitedBefore } = cost;
  const parts = [`${durationText(1000 * seconds)} of tracking`, `${cpu(agentCpuSeconds)} of the agent`];
  if (qemuCpuSeconds !== undefined) parts.push(`${cpu(qemuCpuSeconds)} of QEMU`);
  if (processorsWaited !== undefined)
    parts.push(
      `the guest's processors waited ${percent(processorsWaited)} of it for one of the host's (${percent(processorsWaitedBefore ?? 0)} before)`,
    );
  return `Looking cost: ${parts.join(", ")}`;
}

const cpu = (seconds: number): string => `${durationText(1000 * seconds)} CPU`;
const percent = (part: number): string => `${(100 * part).toFixed(1)} %`;
const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}`;

function row({ strategy, offered, converges, totalSeconds, downtimeMs, bytes }: PredictionView): string[] {
  const notes = [offered ? "" : "not possible here", converges === "unsure" ? "may not converge" : ""];
  if (totalSeconds === undefined || downtimeMs === undefined || bytes === undefined)
    return [
      strategy,
      "-",
      "-",
      "-",
      ["does not converge", offered ? "" : "not possible here"].filter(Boolean).join("; "),
    ];
  return [
    strategy,
    interval(totalSeconds, (seconds) => durationText(1000 * seconds)),
    interval(downtimeMs, durationText),
    interval(bytes, bytesText),
    notes.filter(Boolean).join("; "),
  ];
}

const interval = ({ low, expected, high }: IntervalView, text: (value: number) => string): string =>
  `${text(expected)} (${text(low)} to ${high === 0 ? "no end" : text(high)})`;
