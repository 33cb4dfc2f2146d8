/** The phase *negotiating*: the destination's QEMU is started and compared with the offer. */
import { MigrationFault, type Refusal } from "../../../shared/fault.ts";
import { connectSource, type SourceConnection } from "../../../shared/link/grpc/grpc-link.ts";
import { afterDestination } from "../../../shared/protocol/destination-states.ts";
import { type Agreement, agree, type DestinationFacts } from "../../../shared/protocol/handshake.ts";
import type { Offer } from "../../../shared/protocol/messages.ts";
import { asksForPostcopy } from "../../../shared/protocol/strategies.ts";
import { readDevices, readTree } from "../../../shared/qemu/inspect/guest-devices.ts";
import { readDisks } from "../../../shared/qemu/inspect/guest-disks.ts";
import { whyNoPostcopy } from "../../../shared/qemu/inspect/postcopy-ability.ts";
import { inspectDestination } from "../../../shared/qemu/inspect/preflight.ts";
import type { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import type { GuestDefinition } from "../../../shared/runtime/guest/guest-definition.ts";
import { GuestProcess } from "../../guest/guest-process.ts";
import { markedImages } from "../../guest/marked-images.ts";
import { agreeOnMedia, type Judged } from "../agree-on-media.ts";
import { type DestinationContext, destinationRecord, keeperPlaces } from "../destination-context.ts";
import type { State } from "../destination-state.ts";
import { factsOfHost } from "../first-look.ts";
import { refusalOf, whatIsThere } from "../what-is-there.ts";

/**
 * Starts a QEMU from this host's definition, looks at it and at the host, and answers with the contract or with every
 * reason against it. Where the offer is only a check (`dryRun`), the QEMU is ended again.
 */
export async function negotiate(
  { offer, definition }: State<"negotiating">,
  cx: DestinationContext,
): Promise<State<"staging"> | State<"discarding">> {
  // `host` refers to this array, so reasons that are added later are there when the offer is judged
  const refusals: Refusal[] = [];
  const host = await factsOfHost(definition, cx.config, await cx.promisedBytes(), refusals);
  const source = offer.dryRun ? undefined : connectAhead(cx, offer);
  const guest = await startGuest(cx, offer, definition, host, refusals);
  try {
    const { agreement, disks } = await judge(guest, cx, offer, host, refusals);
    logOutcome(cx, agreement);
    if (agreement.kind === "contract" && guest !== undefined && !offer.dryRun) {
      cx.answer.resolve(agreement);
      return {
        kind: afterDestination("negotiating", "accepted"),
        offer,
        guest,
        contract: agreement.contract,
        disks,
        source,
      };
    }
    source?.close();
    // the answer comes after the QEMU is gone, so that a source that asks again at once finds nothing in the way
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

/**
 * Begins to connect to the source while QEMU starts. Where that fails, *staging* dials again and says why.
 * @returns undefined where the connection could not be begun
 */
function connectAhead(cx: DestinationContext, { sourceAddress }: Offer): SourceConnection | undefined {
  try {
    return connectSource(sourceAddress, cx.limits);
  } catch (thrown) {
    cx.log.debug(
      { fault: MigrationFault.from(thrown).message },
      "the connection to the source could not be begun ahead",
    );
    return undefined;
  }
}

/**
 * Judges the offer by the QEMU and the host.
 * @param guest undefined when no QEMU was started
 * @param refusals the array `host.refusals`; gets the reason of a QEMU that has ended meanwhile
 */
async function judge(
  guest: GuestProcess | undefined,
  cx: DestinationContext,
  offer: Offer,
  host: DestinationFacts,
  refusals: Refusal[],
): Promise<Judged> {
  if (guest !== undefined)
    try {
      const { found, disks } = await lookAt(guest, cx, offer);
      return await agreeOnMedia(offer, { ...host, ...found }, disks, guest, cx);
    } catch (thrown) {
      refusals.push(await endedMeanwhile(guest, thrown));
    }
  return { agreement: agree(offer, host), disks: undefined };
}

/**
 * Asks QEMU for all that is compared with the offer. Meanwhile a record that names the QEMU process is written into the
 * journal.
 */
async function lookAt(guest: GuestProcess, cx: DestinationContext, offer: Offer) {
  const tree = readTree(guest.qmp);
  const reading = readDisks(guest.qmp, guest.process.pid, tree);
  const [inspected, { devices, settings: deviceSettings }, disks, marked, ability] = await Promise.all([
    inspectDestination(guest.qmp),
    readDevices(guest.qmp, tree),
    reading,
    reading.then((disks) => markedImages(disks, offer.guest.mark)),
    asksForPostcopy(offer.transfer) ? tryPostcopy(guest.qmp) : {},
    // startGuest() has written a record before the start as well, so an agent that starts again finds the QEMU at
    // whichever moment this agent has ended
    cx.journal.write(cx.id, destinationRecord(cx, "waiting", guest)),
  ]);
  return {
    found: { guest: { ...inspected, devices, deviceSettings, disks }, markedImages: marked, ...ability },
    disks,
  };
}

/**
 * Makes the end of a QEMU a reason of the refusal, beside the other reasons. A QEMU may end after it has begun to
 * answer, because of a port that is taken or a directory that is missing.
 * @throws the fault that was thrown, where QEMU still lives
 */
async function endedMeanwhile(guest: GuestProcess, thrown: unknown): Promise<Refusal> {
  const fault = await guest.explain(MigrationFault.from(thrown));
  if (!(await guest.hasEnded())) throw fault;
  return { code: "qemu-start", message: fault.message };
}

/** Finds out whether this QEMU can go into post-copy. */
async function tryPostcopy(qmp: QmpClient): Promise<Pick<DestinationFacts, "postcopyRefusal">> {
  const postcopyRefusal = await whyNoPostcopy(qmp);
  return postcopyRefusal === undefined ? {} : { postcopyRefusal };
}

const refusalsOf = (agreement: Agreement): readonly Refusal[] =>
  agreement.kind === "refusals" ? agreement.refusals : [];

function logOutcome(cx: DestinationContext, agreement: Agreement): void {
  if (agreement.kind === "refusals") {
    cx.log.info({ refusals: agreement.refusals }, "the offer is refused");
    return;
  }
  const { ramBlocks: _, ...agreed } = agreement.contract;
  cx.log.info({ agreed }, "the contract is agreed");
}

/**
 * Starts the QEMU, unless there is a reason against the offer already.
 * @param refusals gets the reason why no QEMU was started
 * @returns undefined when no QEMU was started
 */
async function startGuest(
  cx: DestinationContext,
  offer: Offer,
  definition: GuestDefinition,
  host: DestinationFacts,
  refusals: Refusal[],
): Promise<GuestProcess | undefined> {
  // the agent looks a second time: since the first look an earlier migration of the guest may have left, or somebody
  // may have started the guest
  refusals.push(...(await whatIsThere(definition, cx.clock)));
  // the caller's agree() gives the reasons; a start would only make a shortage of memory worse
  if (refusalsOf(agree(offer, host)).length > 0) return undefined;
  try {
    const { runtimeDirectory, qemuStartTimeoutMs } = cx.config;
    await cx.journal.write(cx.id, destinationRecord(cx, "waiting", undefined));
    return await GuestProcess.start(definition, {
      migration: cx.id,
      runtimeDirectory,
      timeoutMs: qemuStartTimeoutMs,
      signal: cx.cancelled,
      clock: cx.clock,
      keeper: asksForPostcopy(offer.transfer) && !offer.dryRun ? keeperPlaces(cx, definition.directory) : undefined,
    });
  } catch (thrown) {
    refusals.push(refusalOf(thrown));
    return undefined;
  }
}
