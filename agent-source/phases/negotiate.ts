import { MigrationFault } from "../../shared/fault.ts";
import { connectDestination } from "../../shared/link/grpc-link.ts";
import { securityOf } from "../../shared/link/security.ts";
import { checkContract, PROTOCOL_VERSIONS, versionText } from "../../shared/protocol/handshake.ts";
import type { Codec, Contract, Offer } from "../../shared/protocol/messages.ts";
import { afterSource } from "../../shared/protocol/source-states.ts";
import type { GuestFacts } from "../../shared/qemu/preflight.ts";
import type { GuestDefinition } from "../../shared/runtime/guest-definition.ts";
import type { SourceContext } from "../source-context.ts";
import type { State } from "../source-state.ts";

/** One round trip: the contract, or every reason why not. */
export async function negotiate(state: State<"negotiating">, cx: SourceContext): Promise<State<"staging">> {
  const { definition, facts, qmp } = state;
  const contract = await askDestination(cx, definition, facts, false);
  cx.report.negotiated = negotiatedView(contract, cx);
  return { kind: afterSource("negotiating", "agreed"), definition, qmp, facts, contract };
}

/** @throws MigrationFault `refused` with all reasons, `peer-unreachable` */
export async function askDestination(
  cx: SourceContext,
  definition: GuestDefinition,
  facts: GuestFacts,
  dryRun: boolean,
): Promise<Contract> {
  const client = connectDestination(cx.call.to, cx.limits);
  try {
    const offer = makeOffer(cx, definition, facts, dryRun);
    const { answer, roundTripMs } = await client.handshake(offer, cx.config.handshakeTimeoutMs, cx.cancelled);
    cx.log.info({ answer: answer.kind, roundTripMs, tls: securityOf(cx.call.to, cx.limits.security) }, "handshake");
    if (answer.kind === "contract") {
      checkContract(offer, answer.contract);
      return answer.contract;
    }
    const reasons = answer.refusals.map((one) => one.message).join("; ");
    throw new MigrationFault("refused", `The destination ${cx.call.to} refused ${definition.name}: ${reasons}`, {
      refusals: answer.refusals,
      role: "destination",
      advice: "Mend what is listed, then migrate again",
    });
  } catch (thrown) {
    const fault = MigrationFault.from(thrown);
    if (fault.code !== "peer-unreachable") throw fault;
    throw fault.with({ advice: `See that ferry-destination runs at ${cx.call.to}, and that this host reaches it` });
  } finally {
    client.close();
  }
}

function makeOffer(cx: SourceContext, definition: GuestDefinition, facts: GuestFacts, dryRun: boolean): Offer {
  const { options } = cx.call;
  const codecs: Codec[] = [];
  if (options.delta) codecs.push("xbzrle");
  if (options.compression !== "off") codecs.push("zstd");
  return {
    protocolVersions: PROTOCOL_VERSIONS,
    migrationId: cx.id,
    token: cx.token,
    sourceAddress: cx.advertised,
    guest: {
      name: definition.name,
      definitionDigest: definition.digest,
      machineType: facts.machineType,
      qemuVersion: facts.qemuVersion,
      cpuModel: facts.cpuModel,
      cpuFeatures: facts.cpuFeatures,
      ramBlocks: facts.ramBlocks,
    },
    transfer: {
      codecs,
      downtimeTargetMs: options.downtimeTargetMs,
      deadlineMs: options.deadlineMs,
      onDeadline: options.onDeadline,
      frameBytes: cx.config.transfer.frameBytes,
      creditWindowBytes: cx.config.transfer.creditWindowBytes,
      verify: options.verify,
      strategy: options.strategy === "auto" ? "precopy" : options.strategy,
    },
    dryRun,
  };
}

/** The contract by name, as the operator sees it. */
export function negotiatedView(contract: Contract, cx: SourceContext): Record<string, string> {
  const { options } = cx.call;
  return {
    "protocol version": String(contract.protocolVersion),
    "destination QEMU": versionText(contract.destinationQemuVersion),
    "destination free memory": `${Math.floor(contract.destinationFreeMemoryBytes / 2 ** 20)} MiB`,
    strategy: options.strategy === "auto" ? "precopy (auto)" : options.strategy,
    codecs: contract.codecs.join(", ") || "none",
    "base cache": `${Math.floor(cx.config.memory.baseCacheBytes / 2 ** 20)} MiB`,
    "frame size": `${contract.frameBytes} B`,
    "credit window": `${contract.creditWindowBytes} B`,
    "downtime target": `${options.downtimeTargetMs} ms`,
    deadline: options.deadlineMs === 0 ? "none" : `${options.deadlineMs} ms, then ${options.onDeadline}`,
    verify: options.verify ? "yes" : "no",
    tls: securityOf(cx.call.to, cx.limits.security),
  };
}
