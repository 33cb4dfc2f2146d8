/**
 * Goes on with a post-copy that has lost an agent or its stream. The source QEMU has a whole copy of the guest until
 * its migration is completed. When it is told which pages the destination misses, it sends all of them, whatever it has
 * sent before (docs/design/post-copy.md#when-something-breaks). So no page is lost with an agent or a stream.
 */
import { MigrationFault } from "../../shared/fault.ts";
import type { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import { pageCountOf } from "../../shared/page/geometry.ts";
import type { SourcePostcopy } from "../../shared/protocol/ownership.ts";
import { POSTCOPY_PROTOCOL } from "../../shared/protocol/strategies.ts";
import { type MigrationPhase, migrationPhase } from "../../shared/qemu/qmp/migration-status.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { orAborted, within } from "../../shared/runtime/deferred.ts";
import { applySettings } from "../guest/qemu-settings.ts";
import { RunState } from "../guest/run-state.ts";
import { shallowFrameBytes } from "../send/credit.ts";
import { setupOf } from "../transfer/resumed-streams.ts";
import { TransferSession } from "../transfer/transfer-session.ts";
import { askWhileCut } from "./poll-cut-destination.ts";
import type { SourceContext } from "./source-context.ts";

/**
 * How long QEMU may take to notice that its stream is over, milliseconds. After that time it is told to pause its
 * migration, for which it has the same time again.
 */
const PAUSES_WITHIN_MS = 10_000;
/** How long the destination may take to say which pages it misses, milliseconds. */
const ANSWERS_WITHIN_MS = 30_000;
const POLL_MS = 20;
/** Phases in which QEMU has no migration with which it could go on, and will not have one. */
const OVER: readonly MigrationPhase[] = ["none", "completed", "cancelled"];

/** The source QEMU has ended, or has left its migration for good: the pages that are missing are lost. */
export class PagesLost extends MigrationFault {}

/**
 * Goes on with post-copy over a new stream from the destination and a new stream from QEMU.
 * @param link the destination's new stream. The destination's earlier stream and QEMU's earlier stream must be over.
 *   This link is closed after a fault
 * @returns a session that serves pages
 * @throws PagesLost when QEMU has nothing left with which it could go on; after any other fault a new stream may be
 *   tried
 */
export async function resumePostcopy(
  cx: SourceContext,
  postcopy: SourcePostcopy,
  link: ResumingSource,
): Promise<TransferSession> {
  let qmp: QmpClient | undefined;
  try {
    qmp = await cx.qemu.connect();
    if (qmp === undefined) throw new PagesLost("qemu-failed", "The source QEMU has ended");
    const from = await untilParked(qmp, cx.clock);
    const { strategy, onDeadline } = { strategy: "postcopy", onDeadline: "cancel" } as const;
    const session = new TransferSession({
      cx,
      qmp,
      ramBlocks: setupOf(postcopy).blocks,
      contract: { ...postcopy, protocolVersion: POSTCOPY_PROTOCOL, strategy, postcopy: true, onDeadline },
      channel: link,
      onCut: askWhileCut(cx, link),
      // nothing is copied before a switchover any more
      onOutlook: () => undefined,
      runs: await RunState.begin(qmp),
      // if the guest stands still, this agent has stopped it
      paused: false,
      resumed: { ...postcopy, from },
    });
    return await resume(session, postcopy, from, cx).catch(async (thrown: unknown) => {
      await session.stop();
      throw thrown;
    });
  } catch (thrown) {
    qmp?.close();
    // the destination does not dial again while this link, which is not served, is open
    link.close(new MigrationFault("peer-lost", "The source agent resumes the post-copy over another stream"));
    throw thrown;
  }
}

/** `break`: QEMU goes on where its stream broke. `start`: QEMU has left its migration, and sends everything again. */
type From = "break" | "start";

async function resume(
  session: TransferSession,
  postcopy: SourcePostcopy,
  from: From,
  cx: SourceContext,
): Promise<TransferSession> {
  const { qmp } = session;
  const { blocks, ramSectionId } = setupOf(postcopy);
  const pageCount = pageCountOf(blocks);
  session.commit();
  // the destination may say only now that the guest runs
  session.inbox.grantSent(cx.token);
  session.probed(0);
  session.stoppedWith = postcopy;
  const missing = await within(
    orAborted(session.inbox.askMissing(pageCount), AbortSignal.any([session.signal, cx.leaving])),
    ANSWERS_WITHIN_MS,
    () => new MigrationFault("timeout", "The destination does not say which pages it misses"),
    cx.clock,
  );
  cx.log.warn({ missing: missing.size, from }, "resuming post-copy");
  await session.intake.listen(session.streamPath);
  const connected = session.intake.connected(AbortSignal.any([session.signal, cx.leaving]));
  connected.catch(() => undefined);
  if (session.postcopy === undefined) throw new TypeError("a session without post-copy");
  session.postcopy.scheduler.frameBytes = shallowFrameBytes(session.meter, postcopy.frameBytes);
  void session.sender.beShallow(session.postcopy.scheduler.frameBytes);
  session.capture.resume({ blocks, ramSectionId });
  session.postcopy.resume(missing, { blocks, ramSectionId }, from === "break");
  void session.endWhenRead();
  if (from === "start") await applySettings(qmp, "precopy");
  await qmp.execute("migrate", { uri: `unix:${session.streamPath}`, resume: from === "break" });
  await connected;
  if (from === "start") session.letStop();
  cx.report.follow(session);
  return session;
}

/**
 * Waits until QEMU has noticed that its stream is over, and tells from where QEMU can send. A QEMU that does not notice
 * within PAUSES_WITHIN_MS is told to pause its migration.
 *
 * If the stream broke after QEMU's last page, or, from QEMU 10.2 on, before the destination had loaded the package,
 * QEMU has left its migration. The guest is then still paused (beginPostcopy() in agent-source/guest/qemu-settings.ts).
 * Another tool's `migrate_cancel` has the same effect.
 * @throws PagesLost when QEMU has no migration with which it could go on; MigrationFault `qemu-failed` when QEMU has
 *   not noticed in time
 */
async function untilParked(qmp: QmpClient, clock: Clock): Promise<From> {
  const deadline = clock.monotonicMs() + PAUSES_WITHIN_MS;
  while (true) {
    const { status } = await qmp.execute("query-migrate");
    const { status: guest } = await qmp.execute("query-status");
    const phase = migrationPhase(status);
    if (phase === "parked") return "break";
    if ((phase === "failed" || phase === "cancelled") && guest === "paused") return "start";
    if (OVER.includes(phase))
      throw new PagesLost("qemu-failed", `The source QEMU's migration is ${status}, and the guest there is ${guest}`);
    if (clock.monotonicMs() > deadline + PAUSES_WITHIN_MS)
      throw new MigrationFault(
        "qemu-failed",
        `The source QEMU's migration stays ${status}: QEMU does not notice that its stream is over`,
      );
    if (clock.monotonicMs() > deadline) await qmp.execute("migrate-pause").catch(() => undefined);
    await clock.sleep(POLL_MS);
  }
}
