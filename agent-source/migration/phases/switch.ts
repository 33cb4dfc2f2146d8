/** The state *switching*: the guest is stopped, the rest of it is sent, and the destination loads it. */
import { type FaultCode, MigrationFault } from "../../../shared/fault.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import { orAborted, within } from "../../../shared/runtime/deferred.ts";
import { writeInTime } from "../../../shared/runtime/journal/write-in-time.ts";
import { checkAgreed, checkPaths } from "../../guest/look-at-guest.ts";
import type { Compared } from "../../report/migration-result.ts";
import type { TransferSession } from "../../transfer/transfer-session.ts";
import { type SourceContext, sourceRecord } from "../source-context.ts";
import type { State } from "../source-state.ts";
import { stopCause } from "../stop-cause.ts";
import { verifyMemory } from "../verify-memory.ts";

/**
 * How long QEMU may take to stop the guest, milliseconds. A stopped guest is an outage: if anything hangs in this
 * state, the migration is soon given up, and the guest goes on here.
 */
const STOPS_WITHIN_MS = 30_000;
/** How long the destination may take to load the guest, milliseconds. */
const LOADS_WITHIN_MS = 60_000;
/**
 * How long QEMU may take to tell which of its disks and devices have changed, milliseconds. It is short, since the
 * guest may stand still meanwhile.
 */
const LOOKS_WITHIN_MS = 2000;
/** Faults that say that somebody has changed the guest. */
const CHANGES: readonly FaultCode[] = ["disks-changed", "devices-changed"];
const NOT_COMPARED: Compared = { pages: 0, exceptions: [] };

/**
 * Stops the guest, sends what is left of it, and waits until the destination has loaded the guest. Compares the memory
 * of both copies where the operator has asked for that.
 */
export async function switchOver(state: State<"switching">, cx: SourceContext): Promise<State<"retiring">> {
  const { session } = state;
  const passes = session.qmp.subscribe((event) => {
    if (event.event === "MIGRATION_PASS") cx.report.passes = Number(event.data.pass);
  });
  try {
    if (session.agreed !== undefined) await checkPaths(session.agreed);
    const noted = noteRetiring(state, cx);
    await stopGuest(state, cx);
    // endWhenRead() tells the destination that the stream has ended. In post-copy the stream ends only after the
    // hand-over, so this function waits for the package instead
    await orAborted(Promise.race([session.endWhenRead(), session.packaged.promise]), session.signal);
    const { paused, reason } = stopCause(session, state, cx);
    // without a package QEMU has completed as in precopy, and no page follows
    if (session.stoppedWith !== undefined && !session.isPostcopy)
      session.stoppedWith = { ...session.stoppedWith, complete: true };
    await notePaused(session, paused, cx);
    // while the destination loads the guest, the record is written to a temporary file: later only a rename is left
    // (Journal.prepare)
    void cx.journal.prepare(cx.id, sourceRecord(cx, "granted", session.kept));
    const isAsAgreed = session.agreed === undefined ? undefined : checkAgreed(session.qmp, session.agreed, cx);
    // `isAsAgreed` is awaited below, so that QEMU answers while the destination loads the guest
    isAsAgreed?.catch(() => undefined);
    const loaded = await within(
      orAborted(session.inbox.loaded.promise, session.signal),
      LOADS_WITHIN_MS,
      () => new MigrationFault("timeout", `The destination did not load the guest within ${LOADS_WITHIN_MS} ms`),
      cx.clock,
    );
    if (!session.isPostcopy && loaded.lastSequence !== session.sender.sequence)
      throw new MigrationFault(
        "peer-invalid",
        `The destination loaded ${loaded.lastSequence} of ${session.sender.sequence} frames`,
      );
    const verifyStartMs = cx.clock.monotonicMs();
    const compared = cx.call.options.verify ? await orAborted(verifyMemory(session, cx), session.signal) : NOT_COMPARED;
    const times = {
      stoppedUs: paused ? 0 : await untilStopped(session, cx),
      lastPagesUs: session.capture.lastPagesSentUs,
      lastByteUs: session.meter.toLocal(loaded.lastByteAtUs),
      loadedUs: session.meter.toLocal(loaded.loadedAtUs),
      verifyMs: cx.call.options.verify ? cx.clock.monotonicMs() - verifyStartMs : 0,
      compared,
    };
    // the next state retires QEMU, so both must be done by now
    await orAborted(Promise.all([noted, isAsAgreed]), session.signal);
    return { kind: afterSource("switching", "loaded"), loaded: { session, times, reason } };
  } catch (thrown) {
    throw await becauseOfChange(MigrationFault.from(thrown), session, cx);
  } finally {
    passes();
  }
}

/**
 * Finds out, after QEMU has failed its migration, whether somebody has changed the guest's disks or devices. A block
 * job that holds an image makes QEMU fail, and QEMU itself says only "Bad address" then (seen with 10.0.2).
 * @returns a fault that says what has changed, with QEMU's words; the given fault where nothing has changed, or where
 *   QEMU does not answer
 */
async function becauseOfChange(
  fault: MigrationFault,
  { agreed, qmp }: TransferSession,
  cx: SourceContext,
): Promise<MigrationFault> {
  if (fault.code !== "qemu-failed" || agreed === undefined || !qmp.isOpen) return fault;
  try {
    await within(checkAgreed(qmp, agreed, cx), LOOKS_WITHIN_MS, () => fault, cx.clock);
    return fault;
  } catch (thrown) {
    const { code, message, advice } = MigrationFault.from(thrown);
    if (!CHANGES.includes(code)) return fault;
    return new MigrationFault(code, `${message}; ${fault.message}`, { cause: fault, ...(advice && { advice }) });
  }
}

/**
 * Writes `retiring` before this agent retires the QEMU: a QEMU that is found in `postmigrate` later was then retired by
 * this migration, and not by somebody who has migrated the guest by hand. The write goes on beside the stop of the
 * guest, and does not make it longer. Post-copy writes a note of its own, with the stream's layout.
 */
function noteRetiring({ session, into }: State<"switching">, cx: SourceContext): Promise<void> {
  if (into === "postcopy") return Promise.resolve();
  const record = sourceRecord(cx, "plan", { ...session.kept, retiring: true });
  const noted = writeInTime(cx, record);
  // switchOver() gets the fault when it waits for the note; a migration that ends before that needs no note
  noted.catch(() => undefined);
  return noted;
}

/**
 * Lets QEMU stop the guest, or stops it for post-copy, and waits until it is stopped. If somebody else has stopped the
 * guest meanwhile, QEMU completes its migration, and sends no STOP of its own.
 */
async function stopGuest({ session, into }: State<"switching">, cx: SourceContext): Promise<void> {
  // the guest is about to be stopped: from here on a broken link is an outage
  if (into !== "nothing") session.channel.setPatience(cx.config.link.finalGiveUpAfterMs);
  switch (into) {
    case "nothing":
      return;
    case "postcopy":
      await session.letPostcopy((postcopy) =>
        cx.journal.write(cx.id, sourceRecord(cx, "plan", { ...session.kept, postcopy, retiring: true })),
      );
      return;
    case "destination":
      session.letStop();
      await Promise.race([untilStopped(session, cx), orAborted(session.completing.promise, session.signal)]);
  }
}

/**
 * Waits for the event STOP, which comes for a guest that ran, if it has not come yet.
 * @returns when the guest was stopped, microseconds since the epoch
 * @throws MigrationFault `qmp-timeout`
 */
function untilStopped(session: TransferSession, cx: SourceContext): Promise<number> {
  return within(
    orAborted(session.runs.stopped, session.signal),
    STOPS_WITHIN_MS,
    () => new MigrationFault("qmp-timeout", `The source QEMU did not stop the guest within ${STOPS_WITHIN_MS} ms`),
    cx.clock,
  );
}

/**
 * Writes whether the guest is paused, if that is not what the journal says already. The record must be on the disk
 * before QEMU is told to complete: from then on only the record tells an agent that starts again whether to start the
 * guest.
 */
async function notePaused(session: TransferSession, paused: boolean, cx: SourceContext): Promise<void> {
  if (paused === session.paused) return;
  const record = sourceRecord(cx, "plan", { ...session.kept, paused, retiring: true });
  await writeInTime(cx, record);
  session.paused = paused;
}
