import { MigrationFault, type Refusal } from "../../../shared/fault.ts";
import { connectSource, type SourceConnection } from "../../../shared/link/grpc/grpc-link.ts";
import { afterDestination } from "../../../shared/protocol/destination-states.ts";
import { type Agreement, agree, type DestinationFacts } from "../../../shared/protocol/handshake.ts";
import type { Offer } from "../../../shared/protocol/messages.ts";
import { asksForPostcopy } from "../../../shared/protocol/strategies.ts";
import { readDevices, readTree } from "../../../shared/qemu/inspect/guest-devices.ts";
import { whyNoPostcopy } from "../../../shared/qemu/inspect/postcopy-ability.ts";
import { inspectDestination } from "../../../shared/qemu/inspect/preflight.ts";
import type { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import type { GuestDefinition } from "../../../shared/runtime/guest/guest-definition.ts";
import { disksHere } from "../../guest/guest-disks.ts";
import { GuestProcess } from "../../guest/guest-process.ts";
import { type DestinationContext, destinationRecord, keeperPlaces } from "../destination-context.ts";
import type { State } from "../destination-state.ts";
import { factsOfHost, refusalOf, whatIsThere } from "../first-look.ts";

/** Looks at its own host and a QEMU of its own, and answers with the contract or with every reason. */
export async function negotiate(
  { offer, definition }: State<"negotiating">,
  cx: DestinationContext,
): Promise<State<"staging"> | State<"discarding">> {
  // what is found from here on is added to it, and read when the offer is judged
  const refusals: Refusal[] = [];
  const host = await factsOfHost(definition, cx.config, await cx.promisedBytes(), refusals);
  const source = offer.dryRun ? undefined : connectAhead(cx, offer);
  const guest = await startGuest(cx, offer, definition, host, refusals);
  try {
    const facts: DestinationFacts = {
      ...host,
      ...(guest === undefined
        ? {}
        : await lookAt(guest, cx, offer, refusals).catch((thrown) => endedMeanwhile(guest, thrown, refusals))),
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

const refusalsOf = (agreement: Agreement): readonly Refusal[] =>
  agreement.kind === "refusals" ? agreement.refusals : [];

function logOutcome(cx: DestinationContext, agreement: Agreement): void {
  if (agreement.kind === "refusals") {
    cx.log.info({ refusals: agreement.refusals }, "refused");
    return;
  }
  const { ramBlocks: _, ...agreed } = agreement.contract;
  cx.log.info({ agreed }, "agreed");
}

async function startGuest(
  cx: DestinationContext,
  offer: Offer,
  definition: GuestDefinition,
  host: DestinationFacts,
  refusals: Refusal[],
): Promise<GuestProcess | undefined> {
  // The agent looks a second time. Since the first look an earlier migration of the guest may have left, or somebody
  // may have started the guest.
  refusals.push(...(await whatIsThere(definition)));
  // agree() gives the reason; a start would only make a shortage of memory worse
  if (refusalsOf(agree(offer, host)).length > 0) return undefined;
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
