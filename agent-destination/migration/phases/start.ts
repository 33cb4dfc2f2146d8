/** The phase *starting*: the journal says that the guest belongs to this host, and the agent starts it. */
import { MigrationFault } from "../../../shared/fault.ts";
import { afterDestination } from "../../../shared/protocol/destination-states.ts";
import type { DestinationPostcopy } from "../../../shared/protocol/ownership.ts";
import { hasRun, PAUSED_STATES } from "../../../shared/qemu/inspect/preflight.ts";
import { processUsage } from "../../../shared/runtime/host/process-usage.ts";
import { orLogged } from "../../../shared/runtime/journal/journal-log.ts";
import { writeInTime } from "../../../shared/runtime/journal/write-in-time.ts";
import { letGoOfImages } from "../../guest/guest-images.ts";
import type { GuestProcess } from "../../guest/guest-process.ts";
import type { Receiver } from "../../replay/receiver.ts";
import { type DestinationContext, destinationRecord } from "../destination-context.ts";
import type { State } from "../destination-state.ts";
import { endableByWord } from "../end-by-word.ts";
import { noteArrival } from "../note-arrival.ts";
import { recoverPostcopy } from "../recover-postcopy.ts";
import { removeSockets } from "./discard.ts";

/**
 * How long QEMU may take to run the guest after `cont`, milliseconds. After that the phase fails and is tried again.
 */
const RESUMES_WITHIN_MS = 10_000;
/** The pause between two looks at QEMU's state, milliseconds. */
const POLL_MS = 20;

type Ends = State<"arrived"> | State<"pulling"> | State<"lost"> | State<"refusing">;

/**
 * Says `cont`, and then answers the source. From here on the guest may have run, so it is refused only if QEMU refuses
 * `cont`. A QEMU that does not answer is asked again for as long as it lives. A guest that was granted paused is not
 * started: the agent only checks that it is here.
 */
export async function start(state: State<"starting">, cx: DestinationContext): Promise<Ends> {
  if (state.postcopy === undefined) return await startGuest(state, cx);
  return await endableByWord(state.guest, cx, () => startGuest(state, cx));
}

async function startGuest(state: State<"starting">, cx: DestinationContext): Promise<Ends> {
  const { guest, grant, grantedAtUs, postcopy } = state;
  checkRecord(state, cx);
  // `cont` itself may need a page, so a lost stream of post-copy is resumed first
  const taken =
    postcopy === undefined || state.receiver !== undefined ? undefined : await resumePostcopy(guest, postcopy, cx);
  const receiver = state.receiver ?? taken;
  if (receiver !== undefined) cx.onStream(receiver.channel);
  // post-copy needs both hosts to its end, so the stream waits however long the link is cut
  if (postcopy !== undefined) receiver?.channel.setPatience(Number.POSITIVE_INFINITY);
  const resumedAtUs = await (grant.paused ? seePaused(guest) : resume(guest, cx)).catch((thrown: unknown) => {
    taken?.close(MigrationFault.from(thrown));
    throw thrown;
  });
  if (typeof resumedAtUs === "object") return declined(state, receiver, resumedAtUs.refusal, cx);
  if (resumedAtUs === undefined) {
    const qemu = await guest.lastWords();
    cx.log.error({ qemu }, "the guest was started, and its QEMU has ended");
    receiver?.close(new MigrationFault("qemu-failed", `The guest was started, and its QEMU has ended: ${qemu}`));
    guest.letGo();
    await removeSockets(cx);
    return { kind: afterDestination("starting", "gone") };
  }
  const usage = processUsage();
  const running = {
    epoch: grant.epoch,
    resumedAtUs,
    grantedAtUs,
    agentCpuSeconds: usage.cpuSeconds - cx.cpuSecondsBefore,
    agentPeakMemoryBytes: usage.peakMemoryBytes,
  };
  await cx.faults.at("arrived", cx.log);
  cx.onRunning(running);
  receiver?.channel.send({ kind: "running", ...running });
  if (postcopy !== undefined) {
    // neither the announcement nor the record is awaited: QEMU's main loop may wait for a page meanwhile
    void announce(guest, cx);
    void orLogged(writeInTime(cx, destinationRecord(cx, "running", guest, { postcopy, ran: true })), cx.log);
    const kind = afterDestination("starting", "pulls");
    return receiver === undefined ? { kind, guest, postcopy } : { kind, guest, receiver, postcopy };
  }
  receiver?.close();
  // the record tells a guest that was seen running from one that may have run. It is written after the answer to the
  // source, which must not wait for the disk, and beside the announcement, by which the network finds the guest
  await Promise.all([noteArrival(destinationRecord(cx, "arrived", guest, grant), cx), announce(guest, cx)]);
  guest.letGo();
  return { kind: afterDestination("starting", "runs") };
}

/**
 * Checks that the journal says `running` for this very process, since `cont` is said to no other.
 * @throws MigrationFault `internal` when it does not
 */
function checkRecord({ guest }: State<"starting">, cx: DestinationContext): void {
  const record = cx.journal.latest(cx.id);
  if (record?.kind === "running" && record.qemu?.identity === guest.process.identity) return;
  const says = record?.kind === "running" ? "running, but not for this QEMU" : (record?.kind ?? "nothing");
  throw new MigrationFault("internal", `The journal says ${says}, so the agent does not start the guest`);
}

/** Refuses a guest for which QEMU has refused `cont`. The guest did not run, so its source may take it back. */
async function declined(
  state: State<"starting">,
  receiver: Receiver | undefined,
  words: string,
  cx: DestinationContext,
): Promise<State<"refusing">> {
  const { guest, postcopy } = state;
  const fault = new MigrationFault("qemu-failed", `The destination's QEMU did not start the guest: ${words}`, {
    advice: "Mend what QEMU says at the destination, then migrate again",
  });
  cx.log.error({ code: fault.code, qemu: await guest.lastWords() }, fault.message);
  await letGoOfImages(guest);
  const undo = receiver === undefined ? { guest } : { guest, receiver };
  // in post-copy pages are missing, so there is no whole copy to keep
  const isWhole = postcopy === undefined;
  return { kind: afterDestination("starting", "declined"), fault, undo, isWhole, mayBeRunning: true };
}

/**
 * Resumes a post-copy whose stream from the source was lost, or was not opened since this agent started again.
 * @returns undefined when there is nothing to resume, because QEMU has every page or has ended
 */
async function resumePostcopy(
  guest: GuestProcess,
  postcopy: DestinationPostcopy,
  cx: DestinationContext,
): Promise<Receiver | undefined> {
  return (await guest.hasEnded()) ? undefined : await recoverPostcopy(guest, postcopy, cx);
}

/**
 * Says `cont` and waits until QEMU runs the guest.
 * @returns when the guest was resumed, microseconds on this host's clock; undefined when its QEMU has ended; QEMU's
 *   words where QEMU has refused
 */
async function resume(
  guest: GuestProcess,
  cx: DestinationContext,
): Promise<number | { readonly refusal: string } | undefined> {
  const qmp = await guest.monitor();
  if (qmp === undefined) return undefined;
  let resumedAtUs: number | undefined;
  const unsubscribe = qmp.subscribe(({ event, timestampUs }) => {
    if (event === "RESUME") resumedAtUs = timestampUs;
  });
  try {
    const deadline = cx.clock.monotonicMs() + RESUMES_WITHIN_MS;
    const { refusal } = await guest.cont(qmp);
    if (refusal !== undefined) return { refusal };
    while (true) {
      const { status } = await qmp.execute("query-status");
      // QEMU sends the event RESUME before it answers that the guest runs
      if (resumedAtUs !== undefined || hasRun(status)) return resumedAtUs ?? cx.clock.nowUs();
      if (cx.clock.monotonicMs() > deadline)
        throw new MigrationFault("qemu-failed", `The destination's QEMU is ${status} after cont, not running`);
      await cx.clock.sleep(POLL_MS);
    }
  } catch (thrown) {
    if (await guest.hasEnded()) return undefined;
    throw thrown;
  } finally {
    unsubscribe();
  }
}

/**
 * Checks that a guest which was granted paused is here, paused or started by its operator.
 * @returns 0, since the guest is not resumed; undefined when its QEMU has ended
 */
async function seePaused(guest: GuestProcess): Promise<number | undefined> {
  const qmp = await guest.monitor();
  if (qmp === undefined) return undefined;
  try {
    const { status } = await qmp.execute("query-status");
    // the guest's operator may have started the guest by now
    if (status === "running" || PAUSED_STATES.includes(status)) return 0;
    throw new MigrationFault("qemu-failed", `The destination's QEMU is ${status}, not paused`);
  } catch (thrown) {
    if (await guest.hasEnded()) return undefined;
    throw thrown;
  }
}

/**
 * Makes QEMU announce the guest on its networks, since the switches between the hosts still send its packets to the
 * source. QEMU holds the announcements of a paused guest back until that guest runs (net/net.c, qemu_can_send_packet).
 * Never rejects.
 */
async function announce(guest: GuestProcess, cx: DestinationContext): Promise<void> {
  await guest.qmp
    .execute("announce-self", { initial: 50, max: 550, rounds: 5, step: 100 })
    .catch((thrown: unknown) =>
      cx.log.warn({ fault: MigrationFault.from(thrown).message }, "QEMU did not announce the guest on its networks"),
    );
}
