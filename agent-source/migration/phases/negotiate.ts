/**
 * The state *negotiating*: the guest is offered to the destination. The planner asks by the same function,
 * askDestination(), without a migration.
 */
import { defined } from "../../../shared/defined.ts";
import { MigrationFault, type Refusal } from "../../../shared/fault.ts";
import { limitsFor } from "../../../shared/link/callers/guest-peers.ts";
import { connectDestination } from "../../../shared/link/grpc/grpc-link.ts";
import { securityOf } from "../../../shared/link/tls/security.ts";
import { saidSettings } from "../../../shared/protocol/device-settings.ts";
import { canStayPaused, checkContract, PROTOCOL_VERSIONS } from "../../../shared/protocol/handshake.ts";
import {
  type Codec,
  type Contract,
  type GuestDisks,
  type HandshakeAnswer,
  type Offer,
  STRATEGIES,
} from "../../../shared/protocol/messages.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import {
  isPostcopy,
  needsPostcopy,
  offeredStrategies,
  POSTCOPY_PROTOCOL,
  postcopyMayFollow,
  versionsFor,
  type Wish,
  withoutPostcopy,
} from "../../../shared/protocol/strategies.ts";
import { FREE_PAGE_HINT } from "../../../shared/qemu/inspect/preflight.ts";
import { type GuestDefinition, shortDigest } from "../../../shared/runtime/guest/guest-definition.ts";
import { type Marked, markDisks } from "../../guest/disk-mark.ts";
import type { FoundGuest } from "../../guest/look-at-guest.ts";
import { negotiatedView } from "../../report/negotiated-view.ts";
import type { SourceContext } from "../source-context.ts";
import type { State } from "../source-state.ts";

/** Offers the guest. One round trip brings the contract, or every reason against it. */
export async function negotiate(state: State<"negotiating">, cx: SourceContext): Promise<State<"staging">> {
  const { definition, facts, qmp } = state;
  const contract = await askDestination(cx, definition, facts, { dryRun: false, measureLink: false });
  cx.report.negotiated = negotiatedView(contract, facts, cx);
  cx.report.degradations.push(...contract.warnings);
  cx.log.info({ negotiated: cx.report.negotiated }, "the contract is agreed");
  return { kind: afterSource("negotiating", "agreed"), definition, qmp, facts, contract };
}

/** Whether an offer is only a check, and whether the destination dials in after a check, to have the link measured. */
type Check = Pick<Offer, "dryRun" | "measureLink">;

/**
 * Offers the guest to the destination. If the source itself refuses the migration, it asks the destination all the
 * same, but only as a check, so that the operator learns at once about everything that has to be mended.
 * @throws MigrationFault `refused` with all reasons of both sides, `peer-unreachable`
 */
export async function askDestination(
  cx: SourceContext,
  definition: GuestDefinition,
  facts: FoundGuest,
  check: Check,
): Promise<Contract> {
  const mine = refusalsHere(cx, facts);
  const marked = await markDisks(facts.disks, cx.id);
  const checked = mine.length > 0 ? { ...check, dryRun: true } : check;
  const offer = makeOffer(cx, definition, facts, marked, checked);
  if (mine.length > 0) {
    const theirs = await refusalsThere(cx, definition, offer).finally(marked.remove);
    throw refused(`This migration of ${definition.name} cannot be`, [...mine, ...theirs]);
  }
  const answer = await handshake(cx, definition, offer).finally(marked.remove);
  if (answer.kind === "contract") return checkContract(offer, answer.contract);
  const refusals = answer.refusals.map((one) => explained(one, offer));
  throw refused(`The destination ${cx.call.to} refused ${definition.name}`, refusals, "destination");
}

const refused = (what: string, refusals: readonly Refusal[], role?: "destination"): MigrationFault =>
  new MigrationFault("refused", `${what}: ${refusals.map((one) => one.message).join("; ")}`, {
    refusals,
    advice: "Mend what is listed, then migrate again",
    ...defined({ role }),
  });

/**
 * Gives what the operator asks for, without post-copy for a guest that stands still: it gains nothing by post-copy, and
 * needs no host that can do it.
 */
const wishOf = ({ call }: SourceContext, { paused }: FoundGuest): Wish =>
  paused ? withoutPostcopy(call.options) : call.options;

/** Gives the reasons against the migration that the source has found at the guest's QEMU. */
const refusalsHere = (cx: SourceContext, facts: FoundGuest): readonly Refusal[] => [
  ...facts.refusals,
  ...(needsPostcopy(wishOf(cx, facts)) ? facts.postcopyRefusals : []),
  ...(cx.call.options.verify ? facts.verifyRefusals : []),
];

/** Gives the reasons of the destination. That the destination cannot be asked is a reason too. */
async function refusalsThere(
  cx: SourceContext,
  definition: GuestDefinition,
  offer: Offer,
): Promise<readonly Refusal[]> {
  try {
    const answer = await handshake(cx, definition, offer);
    return answer.kind === "contract" ? [] : answer.refusals.map((one) => explained(one, offer));
  } catch (thrown) {
    if (cx.cancelled.aborted) throw thrown;
    const { code, message } = MigrationFault.from(thrown);
    return [{ code, message: `The destination was not asked: ${message}` }];
  }
}

/**
 * Adds to a refusal what the destination cannot say: why it was offered no older protocol version (makeOffer), or the
 * digest of the definition here. The operator compares the digests of both definitions, since a destination tells no
 * source the digest of its own definition.
 */
function explained(refusal: Refusal, { guest, transfer }: Offer): Refusal {
  if (refusal.code === "guest-definition")
    return {
      code: "guest-definition",
      message: `${refusal.message} (the digest of the definition at the source is ${shortDigest(guest.definitionDigest)})`,
    };
  if (refusal.code !== "protocol-version") return refusal;
  if (guest.paused)
    return {
      code: "protocol-version",
      message: `${refusal.message}; an older destination agent would start the guest, which is paused: upgrade that agent, or resume the guest`,
    };
  if (!needsPostcopy(transfer)) return refusal;
  return {
    code: "postcopy-protocol",
    message: `Post-copy needs protocol ${POSTCOPY_PROTOCOL}, which the destination agent does not speak; upgrade that agent, or choose precopy`,
  };
}

/** Sends the offer, if the peer may take the guest: any other peer is not told of it. */
async function handshake(cx: SourceContext, definition: GuestDefinition, offer: Offer): Promise<HandshakeAnswer> {
  const client = connectDestination(cx.call.to, limitsFor(definition, cx.limits));
  try {
    const { answer, roundTripMs } = await client.handshake(offer, cx.config.handshakeTimeoutMs, cx.cancelled);
    cx.log.info({ answer: answer.kind, roundTripMs, tls: securityOf(cx.call.to, cx.limits.security) }, "handshake");
    return answer;
  } catch (thrown) {
    const fault = MigrationFault.from(thrown);
    if (fault.code !== "peer-unreachable") throw fault;
    throw fault.with({ advice: `See that ferry-destination runs at ${cx.call.to}, and that this host reaches it` });
  } finally {
    client.close();
  }
}

/** Gives the disks without the names that only this host's QEMU needs. */
const offered = ({ boot, drives, memory = [] }: FoundGuest["disks"]): GuestDisks => ({
  ...{ boot, memory },
  drives: drives.map(({ qdev: _, ...drive }) => drive),
});

/** Tells whether the guest's balloon tells QEMU which pages are free, so that QEMU does not send them. */
const hintsFreePages = ({ verifyRefusals }: FoundGuest): boolean =>
  verifyRefusals.some(({ code }) => code === FREE_PAGE_HINT);

function makeOffer(
  cx: SourceContext,
  definition: GuestDefinition,
  facts: FoundGuest,
  { mark }: Marked,
  check: Check,
): Offer {
  const { options } = cx.call;
  const wish = wishOf(cx, facts);
  const versions = facts.paused ? PROTOCOL_VERSIONS.filter(canStayPaused) : PROTOCOL_VERSIONS;
  const codecs: Codec[] = [];
  if (options.delta) codecs.push("xbzrle");
  if (options.compression !== "off") codecs.push("zstd");
  const able = STRATEGIES.filter((one) => facts.postcopyRefusals.length === 0 || !isPostcopy(one));
  return {
    protocolVersions: versionsFor(wish, versions),
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
      paused: facts.paused,
      devices: facts.devices,
      deviceSettings: saidSettings(facts.settings),
      disks: offered(facts.disks),
      ...defined({ mark }),
      disksUnchecked: options.sharedDisksUnchecked,
    },
    transfer: {
      codecs,
      downtimeTargetMs: options.downtimeTargetMs,
      deadlineMs: options.deadlineMs,
      onDeadline: wish.onDeadline,
      strategies: offeredStrategies(wish, able),
      strategy: wish.strategy,
      frameBytes: cx.config.transfer.frameBytes,
      creditWindowBytes: cx.config.transfer.creditWindowBytes,
      verify: options.verify,
      // with post-copy in its settings QEMU takes no hints from the guest's balloon, and sends all free memory
      postcopyMayFollow: postcopyMayFollow(wish, facts.paused) && !hintsFreePages(facts),
    },
    saysKept: true,
    ...check,
  };
}
