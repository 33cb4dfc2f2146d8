import { readFile } from "node:fs/promises";
import { freemem } from "node:os";
import { MigrationFault, type Refusal } from "../../shared/fault.ts";
import { connectSource, type SourceConnection } from "../../shared/link/grpc-link.ts";
import { zoneMistake } from "../../shared/link/zones.ts";
import { afterDestination } from "../../shared/protocol/destination-states.ts";
import { type Agreement, agree, type DestinationFacts, PROTOCOL_VERSIONS } from "../../shared/protocol/handshake.ts";
import type { Offer } from "../../shared/protocol/messages.ts";
import { asksForPostcopy } from "../../shared/protocol/strategies.ts";
import { readDevices, readTree } from "../../shared/qemu/guest-devices.ts";
import { whyNoPostcopy } from "../../shared/qemu/postcopy-ability.ts";
import { inspectDestination } from "../../shared/qemu/preflight.ts";
import { QmpClient } from "../../shared/qemu/qmp-client.ts";
import { type GuestDefinition, loadGuest } from "../../shared/runtime/guest-definition.ts";
import { type DestinationContext, destinationRecord, keeperPlaces } from "../destination-context.ts";
import type { State } from "../destination-state.ts";
import { disksHere } from "../guest-disks.ts";
import { GuestProcess } from "../guest-process.ts";

const FRAME_BYTES_MAX = 1 << 20;
const CREDIT_WINDOW_BYTES_MAX = 64 << 20;
/** Does a guest answer here already? Its monitor may be held by another client, which is an answer too. */
const ASK_MS = 1000;

/** Looks at its own definition, host and a QEMU of its own, and answers with the contract or with every reason. */
export async function negotiate(
  { offer }: State<"negotiating">,
  cx: DestinationContext,
): Promise<State<"staging"> | State<"discarding">> {
  const refusals: Refusal[] = [];
  const unknownZone = zoneMistake(offer.sourceAddress);
  if (unknownZone !== undefined)
    refusals.push({
      code: "source-address",
      message: `The destination cannot dial the source: ${unknownZone}; set advertise of the source agent to an address that the destination can dial`,
    });
  const definition = await ownDefinition(cx, refusals);
  const freeMemoryBytes = await availableMemory();
  const source = definition === undefined || offer.dryRun ? undefined : connectAhead(cx, offer);
  const guest =
    definition === undefined ? undefined : await startGuest(cx, offer, definition, freeMemoryBytes, refusals);
  try {
    const facts: DestinationFacts = {
      protocolVersions: PROTOCOL_VERSIONS,
      ...(definition === undefined ? {} : { definitionDigest: definition.digest }),
      ...(guest === undefined
        ? {}
        : await lookAt(guest, cx, offer, refusals).catch((thrown) => endedMeanwhile(guest, thrown, refusals))),
      freeMemoryBytes,
      reserveBytes: cx.config.memoryReserveBytes,
      codecs: ["xbzrle", "zstd"],
      frameBytesMax: FRAME_BYTES_MAX,
      creditWindowBytesMax: Math.max(CREDIT_WINDOW_BYTES_MAX, cx.limits.receiveWindowBytes),
      followUpMs: cx.config.followUpMs,
      refusals,
    };
    const agreement = agree(offer, facts);
    logOutcome(cx, agreement);
    if (agreement.kind === "contract" && guest !== undefined && !offer.dryRun) {
      cx.answer.resolve(agreement);
      return {
        kind: afterDestination("negotiating", "accepted"),
        offer,
        guest,
        contract: agreement.contract,
        disks: facts.guest?.disks,
        source,
      };
    }
    source?.close();
    // the answer comes after the guest is gone, so that who asks again at once finds nothing in the way
    await guest?.discard();
    cx.answer.resolve(agreement);
    const fault = new MigrationFault("refused", offer.dryRun ? "Only a check was asked for" : "The offer was refused");
    return { kind: afterDestination("negotiating", "fault"), fault, undo: {}, refused: false };
  } catch (thrown) {
    source?.close();
    await guest?.discard();
    throw thrown;
  }
}

/** While QEMU starts. Where it cannot be dialled, *staging* says why, if it comes to that. */
function connectAhead(cx: DestinationContext, { sourceAddress }: Offer): SourceConnection | undefined {
  try {
    return connectSource(sourceAddress, cx.limits);
  } catch (thrown) {
    cx.log.debug({ fault: MigrationFault.from(thrown).message }, "the source is not connected to ahead");
    return undefined;
  }
}

/** Which QEMU it is goes onto the disk beside the questions to it. */
async function lookAt(
  guest: GuestProcess,
  cx: DestinationContext,
  offer: Offer,
  refusals: Refusal[],
): Promise<Pick<DestinationFacts, "guest" | "markedImages" | "postcopyRefusal">> {
  const tree = readTree(guest.qmp);
  const [inspected, { devices, settings: deviceSettings }, { disks, marked, refusals: media }, ability] =
    await Promise.all([
      inspectDestination(guest.qmp),
      readDevices(guest.qmp, tree),
      disksHere({ qmp: guest.qmp, pid: guest.process.pid, tree }, offer.guest),
      asksForPostcopy(offer.transfer) ? tryPostcopy(guest.qmp) : {},
      // and before it was started, so that an agent that starts again finds the QEMU whenever this one ended
      cx.journal.write(cx.id, destinationRecord(cx, "waiting", guest)),
    ]);
  refusals.push(...media);
  return { guest: { ...inspected, devices, deviceSettings, disks }, markedImages: marked, ...ability };
}

/**
 * A QEMU may end after it has begun to answer, because of a port that is taken or a directory that is missing. That is
 * a reason of the refusal, beside the others.
 * @throws the fault of a QEMU that lives
 */
async function endedMeanwhile(guest: GuestProcess, thrown: unknown, refusals: Refusal[]): Promise<object> {
  const fault = await guest.explain(MigrationFault.from(thrown));
  if (!(await guest.hasEnded())) throw fault;
  refusals.push({ code: "qemu-start", message: fault.message });
  return {};
}

async function tryPostcopy(qmp: QmpClient): Promise<Pick<DestinationFacts, "postcopyRefusal">> {
  const postcopyRefusal = await whyNoPostcopy(qmp);
  return postcopyRefusal === undefined ? {} : { postcopyRefusal };
}

function logOutcome(cx: DestinationContext, agreement: Agreement): void {
  if (agreement.kind === "refusals") {
    cx.log.info({ refusals: agreement.refusals }, "refused");
    return;
  }
  const { ramBlocks: _, ...agreed } = agreement.contract;
  cx.log.info({ agreed }, "agreed");
}

async function ownDefinition(cx: DestinationContext, refusals: Refusal[]): Promise<GuestDefinition | undefined> {
  try {
    return await loadGuest(cx.guest, cx.config);
  } catch (thrown) {
    refusals.push(refusalOf(thrown, "The destination: "));
    return undefined;
  }
}

async function startGuest(
  cx: DestinationContext,
  offer: Offer,
  definition: GuestDefinition,
  freeMemoryBytes: number,
  refusals: Refusal[],
): Promise<GuestProcess | undefined> {
  const inTheWay = await whatIsThere(definition);
  if (inTheWay !== undefined) {
    refusals.push(inTheWay);
    return undefined;
  }
  const needed = offer.guest.ramBlocks.reduce((sum, block) => sum + block.byteLength, 0);
  // agree() says so; starting it would only make the shortage worse
  if (freeMemoryBytes - cx.config.memoryReserveBytes < needed) return undefined;
  try {
    const { runtimeDirectory, qemuStartTimeoutMs } = cx.config;
    await cx.journal.write(cx.id, destinationRecord(cx, "waiting", undefined));
    return await GuestProcess.start(definition, {
      migration: cx.id,
      runtimeDirectory,
      timeoutMs: qemuStartTimeoutMs,
      signal: cx.cancelled,
      keeper: asksForPostcopy(offer.transfer) && !offer.dryRun ? keeperPlaces(cx, definition.directory) : undefined,
    });
  } catch (thrown) {
    refusals.push(refusalOf(thrown));
    return undefined;
  }
}

/** A fault as a reason of a refusal, which has no advice of its own. */
function refusalOf(thrown: unknown, prefix = ""): Refusal {
  const { code, message, advice } = MigrationFault.from(thrown);
  return { code, message: `${prefix}${message}${advice === undefined ? "" : `. ${advice}`}` };
}

/** Tells what is at the guest's monitor already. @returns undefined where nobody is */
async function whatIsThere({ name, qmp }: GuestDefinition): Promise<Refusal | undefined> {
  try {
    (await QmpClient.connect(qmp, { timeoutMs: ASK_MS })).close();
  } catch (thrown) {
    const { code } = MigrationFault.from(thrown);
    if (code === "qmp-unreachable") return undefined;
    if (code === "qmp-forbidden") return refusalOf(thrown, "The destination: ");
  }
  return {
    code: "guest-exists",
    message: `${name} has a QEMU at the destination already, which answers at ${qmp}`,
  };
}

/** What Linux would give without swapping, bytes. */
async function availableMemory(): Promise<number> {
  const text = await readFile("/proc/meminfo", "utf8").catch(() => "");
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(text)?.[1];
  return kibibytes === undefined ? freemem() : Number(kibibytes) * 1024;
}
