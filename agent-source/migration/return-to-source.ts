/**
 * Makes sure that the guest is at the source again as it was, running or paused, in whatever state its QEMU is. This
 * file does not tell the destination (phases/keep.ts).
 */
import { MigrationFault } from "../../shared/fault.ts";
import { PAUSED_STATES } from "../../shared/qemu/inspect/preflight.ts";
import { isSettled } from "../../shared/qemu/qmp/migration-status.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { writeInTime } from "../../shared/runtime/journal/write-in-time.ts";
import { restoreSettings } from "../guest/qemu-settings.ts";
import { abortPostcopy } from "./abort-postcopy.ts";
import { COMPLETES_POLL_MS, COMPLETES_WITHIN_MS } from "./phases/retire.ts";
import type { SourceContext } from "./source-context.ts";
import {
  GUEST_MIGRATED_BY_OTHERS,
  GUEST_PAUSED_HERE,
  GUEST_PAUSED_POSTMIGRATE,
  GUEST_RUNS_HERE,
  GUEST_UNKNOWN_HERE,
  sourceRecord,
  tokenText,
} from "./source-context.ts";
import type { Undo } from "./source-state.ts";

/**
 * How long QEMU's migration may take to end, milliseconds. After that time the migration is cancelled, and after twice
 * that time the agent connects to QEMU again.
 */
const RESUMES_WITHIN_MS = 15_000;
const POLL_MS = 40;
/** The first pause between two tries, milliseconds. The pause doubles with each try, up to PAUSE_MAX_MS. */
const PAUSE_MIN_MS = 250;
const PAUSE_MAX_MS = 5000;
/** Run states in which QEMU is on its way to another run state. */
const PASSING: readonly string[] = ["finish-migrate", "save-vm", "restore-vm"];

/** Where the guest is after runAtSource(). `gone`: the process of its QEMU has ended. */
export interface Here {
  readonly kind: "here" | "gone";
  /** What the guest does now. */
  readonly guestNow: string;
}

/**
 * Ends QEMU's migration, makes the guest run at the source, or stay paused if it was paused, and puts QEMU's migration
 * settings back. The function tries again for as long as QEMU does not answer. It resolves when the guest runs, when
 * the guest stands still for a reason that this migration has nothing to do with, or when the guest's QEMU has ended. A
 * guest that was paused is not started: QEMU itself puts it back into its run state when the migration fails.
 * @throws the reason of `cx.leaving`
 */
export async function runAtSource(undo: Undo, cx: SourceContext): Promise<Here> {
  let qmp = undo.qmp;
  if (cx.qemu.process === undefined) return { kind: "here", guestNow: GUEST_UNKNOWN_HERE };
  if (qmp !== undefined && undo.session !== undefined) await endSession(qmp, undo.session, undo, cx);
  for (let pauseMs = PAUSE_MIN_MS; ; pauseMs = Math.min(PAUSE_MAX_MS, 2 * pauseMs)) {
    try {
      if (qmp?.isOpen !== true) qmp = await cx.qemu.connect();
      if (qmp === undefined) return { kind: "gone", guestNow: await whenGone(cx) };
      return { kind: "here", guestNow: await settle(qmp, undo, cx) };
    } catch (thrown) {
      if (cx.leaving.aborted) throw MigrationFault.from(cx.leaving.reason);
      const { message } = MigrationFault.from(thrown);
      cx.log.error({ fault: message }, "the guest cannot be confirmed to run at the source; the agent tries again");
      cx.report.guestNow(
        `the guest is at the source, but cannot be confirmed to run (${message}); the agent tries again`,
      );
      // a monitor that answers is kept: there may be no other way to this QEMU
      if (MigrationFault.from(thrown).code !== "qemu-failed" || qmp?.isOpen !== true) {
        qmp?.close();
        qmp = undefined;
      }
    } finally {
      if (cx.leaving.aborted) qmp?.close();
    }
    await cx.clock.sleep(pauseMs);
  }
}

/** Says in words that the guest is gone, and whether another QEMU of it runs on this host. */
async function whenGone(cx: SourceContext): Promise<string> {
  const { anotherRuns } = await cx.qemu.look(false);
  const gone = "the guest is gone: its QEMU at the source has ended";
  return anotherRuns ? `${gone}, and another QEMU of the guest, which this migration does not touch, runs here` : gone;
}

/**
 * Ends QEMU's migration. QEMU resumes the guest by itself when its migration is cancelled, and also when the socket of
 * its stream closes before SHUT.
 *
 * A QEMU that waits for SHUT has released the guest's images. If its migration fails then, while another program has an
 * image locked, QEMU runs the guest without its images, and aborts as soon as the guest writes (seen with 10.0.2:
 * `bdrv_co_write_req_prepare: Assertion '!(bs->open_flags & BDRV_O_INACTIVE)' failed`). Therefore such a QEMU is told
 * to complete, and the guest is started by `cont`, which QEMU refuses for as long as it cannot have the images.
 */
async function endSession(
  qmp: QmpClient,
  session: NonNullable<Undo["session"]>,
  undo: Undo,
  cx: SourceContext,
): Promise<void> {
  if (session.awaitsShut && (await noteRetiring(undo, cx))) {
    session.shut();
    await completes(qmp, cx.clock).catch((thrown: unknown) =>
      cx.log.warn({ fault: MigrationFault.from(thrown).message }, "the source QEMU did not complete after SHUT"),
    );
    return await session.stop();
  }
  await Promise.allSettled([cx.qemu.cancelMigration(qmp), session.stop()]);
}

/**
 * Writes that this agent is about to retire its QEMU. An agent that starts again then finds that QEMU in `postmigrate`,
 * and starts the guest only where the record says that an agent has retired it.
 * @returns false where the disk does not take the record
 */
const noteRetiring = ({ settings, postcopy, paused }: Undo, cx: SourceContext): Promise<boolean> =>
  writeInTime(cx, sourceRecord(cx, "plan", { settings, postcopy, paused, retiring: true })).then(
    () => true,
    () => false,
  );

/** Waits until QEMU's migration has ended after SHUT. @throws MigrationFault `qmp-timeout` */
async function completes(qmp: QmpClient, clock: Clock): Promise<void> {
  const deadline = clock.monotonicMs() + COMPLETES_WITHIN_MS;
  while (!isSettled((await qmp.execute("query-migrate")).status)) {
    if (clock.monotonicMs() > deadline)
      throw new MigrationFault(
        "qmp-timeout",
        `The source QEMU did not complete its migration within ${COMPLETES_WITHIN_MS} ms after SHUT`,
      );
    await clock.sleep(COMPLETES_POLL_MS);
  }
}

async function settle(qmp: QmpClient, undo: Undo, cx: SourceContext): Promise<string> {
  const { settings } = undo;
  const guestNow = await waitUntilSettled(qmp, undo, cx);
  // QEMU takes no settings before its migration has ended
  if (settings !== undefined) await restoreSettings(qmp, settings);
  qmp.close();
  return guestNow;
}

/**
 * Waits until QEMU's migration has ended and the guest is at the source as it was. Meanwhile a post-copy that QEMU has
 * paused is aborted, a migration that QEMU does not end in time is cancelled, and a guest that this migration has
 * stopped is started. `postcopy` is set where this agent itself has stopped the guest.
 * @returns what the guest does now
 * @throws MigrationFault `qmp-timeout`, and faults of the monitor
 */
async function waitUntilSettled(
  qmp: QmpClient,
  { paused, postcopy, isRetired, granted }: Pick<Undo, "paused" | "postcopy" | "isRetired" | "granted">,
  cx: SourceContext,
): Promise<string> {
  const deadline = cx.clock.monotonicMs() + RESUMES_WITHIN_MS;
  while (true) {
    const { status: migration } = await qmp.execute("query-migrate");
    const { status } = await qmp.execute("query-status");
    // a guest that ran only passes through `prelaunch`; a guest that is paused may have been in it from the beginning
    const passing = PASSING.includes(status) || (status === "prelaunch" && !paused);
    if (isSettled(migration) && !passing) {
      if (status === "running") return GUEST_RUNS_HERE;
      if (paused && PAUSED_STATES.includes(status)) return GUEST_PAUSED_HERE;
      if (status === "postmigrate" && !isRetired) return GUEST_MIGRATED_BY_OTHERS;
      if (paused && status === "postmigrate") return GUEST_PAUSED_POSTMIGRATE;
      const wasStopped = status === "postmigrate" || (status === "paused" && postcopy !== undefined);
      if (!wasStopped) return `the guest is at the source, and its QEMU says that it is ${status}`;
      const refusedToken = granted === "givenBack" ? tokenText(cx) : undefined;
      await cx.qemu.cont(qmp, { record: cx.journal.latest(cx.id), refusedToken });
    } else if (migration === "postcopy-paused" && postcopy !== undefined) await abortPostcopy(qmp, postcopy, cx);
    else if (!isSettled(migration) && cx.clock.monotonicMs() > deadline)
      // an earlier life of this agent was killed, and QEMU has not noticed
      await cx.qemu.cancelMigration(qmp);
    if (cx.clock.monotonicMs() > deadline + RESUMES_WITHIN_MS)
      throw new MigrationFault("qmp-timeout", `The source QEMU stays ${status}, and its migration ${migration}`);
    if (cx.leaving.aborted) throw MigrationFault.from(cx.leaving.reason);
    await cx.clock.sleep(POLL_MS);
  }
}

/** Says in words what the guest does, if this migration has not touched it. */
export async function leaveAsFound(qmp: QmpClient): Promise<string> {
  try {
    const { status } = await qmp.execute("query-status");
    return status === "running" ? GUEST_RUNS_HERE : `the guest is at the source as it was: ${status}`;
  } catch (thrown) {
    return `the guest was not touched; its QEMU does not answer: ${MigrationFault.from(thrown).message}`;
  }
}
