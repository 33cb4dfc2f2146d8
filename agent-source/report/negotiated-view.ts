/**
 * Describes the terms on which the two agents have agreed: each term has a name and a text. The operator sees the terms
 * before the first page, and with the result.
 */
import type { LinkLimits } from "../../shared/link/link.ts";
import { securityOf } from "../../shared/link/tls/security.ts";
import { versionText } from "../../shared/protocol/handshake.ts";
import type { Contract } from "../../shared/protocol/messages.ts";
import type { MigrateCall, MigrateOptions } from "../../shared/protocol/report.ts";
import { isPostcopy } from "../../shared/protocol/strategies.ts";
import type { SourceFacts } from "../../shared/qemu/inspect/preflight.ts";
import type { SourceConfig } from "../../shared/runtime/config/config.ts";

/** What the view needs to know of the migration itself. */
export interface Negotiated {
  readonly call: MigrateCall;
  readonly config: SourceConfig;
  readonly limits: LinkLimits;
  /** What a plan before has to do with the strategy; empty where there was no plan. */
  readonly chosenBecause: string;
}

/** Gives the text of each term by the name of the term. docs/operations.md explains every name ("What was agreed"). */
export function negotiatedView(contract: Contract, facts: SourceFacts, cx: Negotiated): Record<string, string> {
  const { options } = cx.call;
  const memoryBytes = facts.ramBlocks.reduce((sum, block) => sum + block.byteLength, 0);
  return {
    "protocol version": String(contract.protocolVersion),
    "source QEMU": versionText(facts.qemuVersion),
    "destination QEMU": versionText(contract.destinationQemuVersion),
    "machine type": facts.machineType,
    "CPU model": facts.cpuModel,
    memory: `${mebibytes(memoryBytes)} in ${facts.ramBlocks.length} RAM blocks`,
    "destination free memory": mebibytes(contract.destinationFreeMemoryBytes),
    strategy: facts.paused ? pausedStrategy(options.strategy) : chosen(contract.strategy, cx),
    strategies: contract.strategies.join(", "),
    "post-copy": postcopy(contract, facts, options),
    codecs: contract.codecs.join(", ") || "none",
    "zstd level": zstdLevel(contract, cx),
    "base cache": contract.codecs.includes("xbzrle") ? mebibytes(cx.config.memory.baseCacheBytes) : "none",
    arena: mebibytes(cx.config.memory.arenaBytes),
    "frame size": `${contract.frameBytes} B`,
    "credit window": `${contract.creditWindowBytes} B`,
    "bandwidth cap": options.bandwidthBytesPerSecond === 0 ? "none" : `${options.bandwidthBytesPerSecond} B/s`,
    "downtime target": facts.paused ? "none, the guest is paused" : `${options.downtimeTargetMs} ms`,
    deadline: options.deadlineMs === 0 ? "none" : `${options.deadlineMs} ms, then ${contract.onDeadline}`,
    verify: options.verify ? "yes" : "no",
    tls: securityOf(cx.call.to, cx.limits.security),
  };
}

/** The strategy of a guest that stands still: it is copied once, whatever was asked for. */
const pausedStrategy = (asked: MigrateOptions["strategy"]): string =>
  asked === "stop-and-copy" ? asked : `stop-and-copy (${asked}: the guest is paused)`;

function chosen(strategy: string, { call, chosenBecause }: Negotiated): string {
  if (chosenBecause !== "") return `${strategy} (auto, ${chosenBecause})`;
  return call.options.strategy === "auto" ? `${strategy} (auto)` : strategy;
}

/**
 * The risk of post-copy, which the operator is to know before post-copy begins
 * (docs/design/post-copy.md#who-owns-the-guest).
 */
const RISK = "once post-copy has begun, the guest is lost if either host is lost before the guest's last page has come";

function postcopy(contract: Contract, facts: SourceFacts, { strategy, verify, robust }: MigrateOptions): string {
  if (robust) return "not with --robust";
  if (contract.postcopy)
    return isPostcopy(contract.strategy) || strategy !== "auto"
      ? `on in both QEMUs; ${RISK}`
      : `follows where precopy has no end or takes much longer (--robust excludes it); ${RISK}`;
  if (facts.paused) return "off, the guest is paused";
  if (contract.strategies.some(isPostcopy)) return "possible, off";
  if (strategy !== "auto") return "not asked for";
  if (verify) return "not with --verify";
  const reasons = [...facts.postcopyRefusals.map(({ message }) => message), contract.postcopyObstacle];
  return `no: ${reasons.filter((one) => one !== "").join("; ")}`;
}

function zstdLevel({ codecs }: Contract, { call, config }: Negotiated): string {
  const { compression } = call.options;
  if (!codecs.includes("zstd") || compression === "off") return "off";
  if (config.transfer.zstdWorkers === 0) return "off (transfer.zstdWorkers)";
  return compression === "auto" ? "follows the link" : String(compression);
}

const mebibytes = (bytes: number): string => `${Math.floor(bytes / 2 ** 20)} MiB`;
