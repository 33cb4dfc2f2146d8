/** The state *retiring*: the source QEMU completes its migration, and never runs the guest by itself again. */
import { MigrationFault } from "../../../shared/fault.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import { servesPostcopy } from "../../../shared/qemu/qmp/migration-status.ts";
import type { Clock } from "../../../shared/runtime/clock.ts";
import type { TransferSession } from "../../transfer/transfer-session.ts";
import type { SourceContext } from "../source-context.ts";
import type { State } from "../source-state.ts";

/** How long QEMU may take to complete after SHUT, and then to leave `finish-migrate`; milliseconds for each. */
export const COMPLETES_WITHIN_MS = 10_000;
/** The pause between two looks at a QEMU that completes, milliseconds. It is short, since the guest stands still. */
export const COMPLETES_POLL_MS = 2;

/**
 * Says SHUT, and waits until QEMU can never run the guest by itself again. A QEMU that has ended cannot run it either:
 * the guest is whole at the destination then, and the migration goes on to save it.
 */
export async function retire(state: State<"retiring">, cx: SourceContext): Promise<State<"recording">> {
  const { loaded } = state;
  const next: State<"recording"> = { kind: afterSource("retiring", "retired"), loaded };
  if (loaded.session.isPostcopy) {
    await checkServing(loaded.session);
    return next;
  }
  try {
    await completeMigration(loaded.session, cx.clock);
  } catch (thrown) {
    // if somebody has started the guest here meanwhile, the copy at the destination is older than what ran here
    if (!loaded.session.runs.standsStill || !(await hasEnded(loaded.session, cx))) throw thrown;
    cx.log.warn({ fault: MigrationFault.from(thrown).message }, "the source QEMU has ended; the guest goes on");
    cx.report.degradations.push("The source QEMU ended during the switchover; the guest was saved at the destination");
  }
  return next;
}

/**
 * Says SHUT to a QEMU that has written its stream, and waits until it is retired.
 * @throws MigrationFault `qmp-timeout`; `qemu-failed` for a QEMU that ends in another state than `postmigrate`
 */
export async function completeMigration(
  session: Pick<TransferSession, "qmp" | "signal" | "shut">,
  clock: Clock,
): Promise<void> {
  // if the migration was cancelled meanwhile, QEMU resumes the guest by itself, which it would not do after SHUT
  session.signal.throwIfAborted();
  const completed = session.qmp.waitFor("MIGRATION", (event) => event.data.status === "completed", {
    timeoutMs: COMPLETES_WITHIN_MS,
    signal: session.signal,
  });
  session.shut();
  await completed;
  const status = await statusAfterCompletion(session, clock);
  if (status !== "postmigrate")
    throw new MigrationFault("qemu-failed", `The source QEMU is ${status} after its migration, not postmigrate`);
}

/**
 * Gives the run state of a QEMU that has said that its migration is completed. QEMU says so before it leaves the run
 * state `finish-migrate`: to leave it, the thread of its migration waits for the lock that all monitors share
 * (migration_completion() and migration_iteration_finish() in QEMU's migration/migration.c).
 */
async function statusAfterCompletion(
  { qmp, signal }: Pick<TransferSession, "qmp" | "signal">,
  clock: Clock,
): Promise<string> {
  const deadline = clock.monotonicMs() + COMPLETES_WITHIN_MS;
  while (true) {
    const { status } = await qmp.execute("query-status");
    if (status !== "finish-migrate" || clock.monotonicMs() > deadline) return status;
    await clock.sleep(COMPLETES_POLL_MS, signal);
  }
}

/**
 * Checks that QEMU sends pages. In post-copy QEMU is retired already: this agent has stopped the guest before QEMU's
 * migration could, so QEMU does not run the guest by itself, whatever breaks
 * (docs/design/post-copy.md#the-guest-is-stopped-by-the-agent).
 * @throws MigrationFault `qemu-failed`
 */
async function checkServing(session: TransferSession): Promise<void> {
  session.signal.throwIfAborted();
  const { status } = await session.qmp.execute("query-migrate");
  if (!servesPostcopy(status))
    throw new MigrationFault(
      "qemu-failed",
      `The source QEMU's migration is ${status} in post-copy, and sends no pages`,
    );
}

/** Tells whether QEMU's monitor is closed and its process has ended. */
async function hasEnded(session: TransferSession, cx: SourceContext): Promise<boolean> {
  return session.qemuLost && !session.signal.aborted && (await cx.qemu.isSeenEnded());
}
