/**
 * Judges an offer before this agent starts a QEMU for it, from this host's definition of the guest and from the host. A
 * caller that does not have the same definition, or may not bring the guest, gets no further than this
 * (docs/decisions/0049).
 */
import { defined } from "../../shared/defined.ts";
import { MigrationFault, type Refusal } from "../../shared/fault.ts";
import { whyNotBrought } from "../../shared/link/callers/guest-peers.ts";
import type { Caller, LinkLimits } from "../../shared/link/link.ts";
import { zoneMistake } from "../../shared/link/listen/zones.ts";
import { callWith, UNIX_ONLY } from "../../shared/link/tls/security.ts";
import { agree, type DestinationFacts, PROTOCOL_VERSIONS } from "../../shared/protocol/handshake.ts";
import type { Offer } from "../../shared/protocol/messages.ts";
import type { DestinationConfig } from "../../shared/runtime/config/config.ts";
import { type GuestDefinition, loadGuest } from "../../shared/runtime/guest/guest-definition.ts";
import { memoryOf } from "../../shared/runtime/guest/qemu-options.ts";
import { availableMemory } from "../../shared/runtime/host/available-memory.ts";
import type { Logger } from "../../shared/runtime/log/log.ts";
import { type MonitorLooks, refusalOf } from "./what-is-there.ts";

/** The largest frame that this destination agrees to, bytes before compression; it bounds a migration's buffers. */
const FRAME_BYTES_MAX = 1 << 20;
/** The largest credit window that this destination agrees to, bytes, unless its `receiveWindow` is larger. */
const CREDIT_WINDOW_BYTES_MAX = 64 << 20;
export interface FirstLookParts {
  readonly config: DestinationConfig;
  /** How the agent that made the offer may be dialled. The address in the offer is checked against these limits. */
  readonly limits: LinkLimits;
  readonly log: Logger;
  /** Bounds the looks at the monitors of guests that run here. */
  readonly looks: Pick<MonitorLooks, "lookAt">;
}

export interface FirstLook {
  /**
   * This host's definition of the guest. Undefined where the caller may not bring the guest, where this host has no
   * definition that can be used, or where its definition differs from the one that the source offers.
   */
  readonly definition: GuestDefinition | undefined;
  /** Every reason against the offer that is known so far. */
  readonly refusals: Refusal[];
}

/**
 * Judges an offer as far as that can be done without a QEMU.
 * @param promisedBytes memory that guests which were accepted before are still to take, bytes
 * @param isExpected true where an earlier migration of the guest is known here, whose QEMU is then no reason against
 *   this offer
 */
export async function firstLook(
  offer: Offer,
  caller: Caller,
  parts: FirstLookParts,
  { promisedBytes, isExpected }: { readonly promisedBytes: number; readonly isExpected: boolean },
): Promise<FirstLook> {
  const refusals: Refusal[] = [];
  const own = await ownDefinition(offer.guest.name, parts, refusals);
  const notBrought = own === undefined ? undefined : whyNotBrought(own, caller);
  if (notBrought !== undefined) return { definition: undefined, refusals: [notBrought] };
  refusals.push(...sourceAddressMistakes(offer, parts.limits));
  const isAlike = own?.digest === offer.guest.definitionDigest;
  if (own !== undefined && isAlike && !isExpected) refusals.push(...(await parts.looks.lookAt(own)));
  const facts = await factsOfHost(own, parts.config, promisedBytes, refusals);
  const agreement = agree(offer, facts);
  if (own !== undefined && !isAlike)
    parts.log.info(
      { guest: own.name, offered: offer.guest.definitionDigest, own: own.digest },
      "the offered guest's definition differs from this host's",
    );
  return {
    definition: isAlike ? own : undefined,
    refusals: agreement.kind === "refusals" ? [...agreement.refusals] : [],
  };
}

/**
 * Gathers the facts that need no QEMU.
 * @param refusals becomes a part of the facts: a reason that is added to the array later counts as well
 */
export async function factsOfHost(
  definition: GuestDefinition | undefined,
  { receiveWindowBytes, memoryReserveBytes, followUpMs }: DestinationConfig,
  promisedBytes: number,
  refusals: readonly Refusal[],
): Promise<DestinationFacts> {
  return {
    protocolVersions: PROTOCOL_VERSIONS,
    ...defined({ definitionDigest: definition?.digest }),
    freeMemoryBytes: (await availableMemory()) - promisedBytes,
    promisedBytes,
    reserveBytes: memoryReserveBytes,
    definedBytes: definition === undefined ? 0 : definedBytes(definition),
    codecs: ["xbzrle", "zstd"],
    frameBytesMax: FRAME_BYTES_MAX,
    creditWindowBytesMax: Math.max(CREDIT_WINDOW_BYTES_MAX, receiveWindowBytes),
    followUpMs,
    refusals,
  };
}

/** Memory of the guest by its definition, bytes; 0 where the definition does not say it. */
export const definedBytes = ({ command }: GuestDefinition): number => memoryOf(command) ?? 0;

/**
 * Loads this host's definition of the guest. Where that fails, the reason is added to `refusals`. What is wrong with a
 * definition is only logged, since the caller has not shown that it has the same definition.
 */
async function ownDefinition(
  name: string,
  { config, log }: FirstLookParts,
  refusals: Refusal[],
): Promise<GuestDefinition | undefined> {
  try {
    return await loadGuest(name, config);
  } catch (thrown) {
    const fault = MigrationFault.from(thrown);
    if (fault.code === "configuration") {
      log.warn({ guest: name, fault }, "the guest's definition cannot be used");
      const message = `The destination's definition of ${name} cannot be used; "ferry guests" at the source agent of that host, and the log of its destination agent, say why`;
      refusals.push({ code: fault.code, message });
    } else refusals.push(refusalOf(fault, "The destination: "));
    return undefined;
  }
}

/** Checks whether the address in the offer may be dialled, without dialling it. */
function sourceAddressMistakes({ sourceAddress }: Offer, { security }: LinkLimits): readonly Refusal[] {
  const refusal = (why: string): Refusal => ({
    code: "source-address",
    message: `The destination cannot dial the source: ${why}; set advertise of the source agent to an address that the destination can dial`,
  });
  try {
    const unknownZone = zoneMistake(sourceAddress);
    if (unknownZone !== undefined) return [refusal(unknownZone)];
    callWith(sourceAddress, security ?? UNIX_ONLY);
    return [];
  } catch (thrown) {
    return [refusal(MigrationFault.from(thrown).message)];
  }
}
