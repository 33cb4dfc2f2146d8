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

/** A stopped guest is an outage: whatever hangs now is given up soon, and the guest goes on here. */
const STOPS_WITHIN_MS = 30_000;
const LOADS_WITHIN_MS = 60_000;
/** How long QEMU is asked what has changed, milliseconds. It is short, since the guest may stand still meanwhile. */
const LOOKS_WITHIN_MS = 2000;
const CHANGES: readonly FaultCode[] = ["disks-changed", "devices-changed"];
const NOT_COMPARED: Compared = { pages: 0, exceptions: [] };

/** QEMU stops the guest and sends the rest; the destination loads it; its memory is compared when asked for. */
export async function switchOver(state: State<"switching">, cx: SourceContext): Promise<State<"retiring">> {
  const { feed } = state;
  const passes = feed.qmp.subscribe((event) => {
    if (event.event === "MIGRATION_PASS") cx.report.passes = Number(event.data.pass);
  });
  try {
    if (feed.agreed !== undefined) await checkPaths(feed.agreed);
    const noted = noteRetiring(state, cx);
    await stopGuest(state, cx);
    // the end of the stream is said when it comes; of post-copy that is behind the hand-over
    await orAborted(Promise.race([feed.endWhenRead(), feed.packaged.promise]), feed.signal);
    const { paused, reason } = stopCause(feed, state, cx);
    // without a package no page follows
    if (feed.stoppedWith !== undefined && !feed.isPostcopy) feed.stoppedWith = { ...feed.stoppedWith, complete: true };
    await notePaused(feed, paused, cx);
    // beside the wait for the destination: while the guest stands still it is then only to be put in its place
    void cx.journal.prepare(cx.id, sourceRecord(cx, "granted", feed.kept));
    const isAsAgreed = feed.agreed === undefined ? undefined : checkAgreed(feed.qmp, feed.agreed, cx);
    // waited for below, beside the destination
    isAsAgreed?.catch(() => undefined);
    const loaded = await within(
      orAborted(feed.inbox.loaded.promise, feed.signal),
      LOADS_WITHIN_MS,
      () => new MigrationFault("timeout", `The destination did not load the guest within ${LOADS_WITHIN_MS} ms`),
    );
    if (!feed.isPostcopy && loaded.lastSequence !== feed.sender.sequence)
      throw new MigrationFault(
        "peer-invalid",
        `The destination loaded ${loaded.lastSequence} of ${feed.sender.sequence} frames`,
      );
    const verifyStartMs = cx.clock.monotonicMs();
    const compared = cx.call.options.verify ? await orAborted(verifyMemory(feed, cx), feed.signal) : NOT_COMPARED;
    const times = {
      stoppedUs: paused ? 0 : await untilStopped(feed),
      lastPagesUs: feed.engine.lastPagesSentUs,
      lastByteUs: feed.meter.toLocal(loaded.lastByteAtUs),
      loadedUs: feed.meter.toLocal(loaded.loadedAtUs),
      verifyMs: cx.call.options.verify ? cx.clock.monotonicMs() - verifyStartMs : 0,
      compared,
    };
    // what comes next retires QEMU
    await orAborted(Promise.all([noted, isAsAgreed]), feed.signal);
    return { kind: afterSource("switching", "loaded"), loaded: { feed, times, reason } };
  } catch (thrown) {
    throw await becauseOfChange(MigrationFault.from(thrown), feed, cx);
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
    await within(checkAgreed(qmp, agreed, cx), LOOKS_WITHIN_MS, () => fault);
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
function noteRetiring({ feed, into }: State<"switching">, cx: SourceContext): Promise<void> {
  if (into === "postcopy") return Promise.resolve();
  const record = sourceRecord(cx, "plan", { ...feed.kept, retiring: true });
  const noted = writeInTime(cx, record);
  // the fault reaches whoever waits for the note; a migration that ends before that needs no note
  noted.catch(() => undefined);
  return noted;
}

/**
 * Until the guest is stopped; one that somebody else has stopped meanwhile QEMU completes with, and sends no STOP of
 * its own.
 */
async function stopGuest({ feed, into }: State<"switching">, cx: SourceContext): Promise<void> {
  // the guest is about to be stopped: from here on a broken link is an outage
  if (into !== "nothing") feed.channel.setPatience(cx.config.link.finalGiveUpAfterMs);
  switch (into) {
    case "nothing":
      return;
    case "postcopy":
      await feed.letPostcopy((postcopy) =>
        cx.journal.write(cx.id, sourceRecord(cx, "plan", { ...feed.kept, postcopy, retiring: true })),
      );
      return;
    case "destination":
      feed.letStop();
      await Promise.race([untilStopped(feed), orAborted(feed.completing.promise, feed.signal)]);
  }
}

/** @returns when, microseconds since the epoch; of a guest that ran the event comes, if it has not yet */
function untilStopped(feed: TransferSession): Promise<number> {
  return within(
    orAborted(feed.runs.stopped, feed.signal),
    STOPS_WITHIN_MS,
    () => new MigrationFault("qmp-timeout", `No STOP from QEMU within ${STOPS_WITHIN_MS} ms`),
  );
}

/**
 * An agent that starts again starts the guest of a QEMU that has completed, or does not: before it is told to complete.
 */
async function notePaused(feed: TransferSession, paused: boolean, cx: SourceContext): Promise<void> {
  if (paused === feed.paused) return;
  const record = sourceRecord(cx, "plan", { ...feed.kept, paused, retiring: true });
  await writeInTime(cx, record);
  feed.paused = paused;
}
