/** The state *copying*: pages flow while the guest runs, until the switchover begins. */
import { MigrationFault } from "../../../shared/fault.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import { orAborted } from "../../../shared/runtime/deferred.ts";
import { PAGE_SIZE } from "../../../shared/units.ts";
import type { TransferSession } from "../../transfer/transfer-session.ts";
import { unlessSilentFor } from "../await-answer.ts";
import type { SourceContext } from "../source-context.ts";
import type { State } from "../source-state.ts";

/**
 * The shortest pause between two questions how much is dirty, milliseconds. A pass that is shorter is soon read to its
 * end, which tells the same.
 */
const ASKS_EVERY_MS = 1000;

/**
 * Asks QEMU how many pages it has found dirty at a sync. Nobody waits for the answer. Without an answer the migration
 * goes on, and QEMU's pages tell the same later.
 * @param seconds the time since the sync before
 */
function askWhatIsDirty({ qmp, capture }: TransferSession, seconds: number): void {
  qmp.execute("query-migrate").then(
    ({ ram }) => {
      if (ram !== undefined) capture.observer.synced(ram.remaining / PAGE_SIZE, seconds);
    },
    () => undefined,
  );
}

/**
 * Copies until the policy decides to switch over, or until QEMU completes by itself because the guest stands still.
 * @throws MigrationFault `deadline` when the policy gives the migration up
 */
export async function copy(state: State<"copying">, cx: SourceContext): Promise<State<"switching">> {
  const { session } = state;
  cx.report.follow(session);
  const syncs = { lastMs: cx.clock.monotonicMs(), askedMs: Number.NEGATIVE_INFINITY };
  const unsubscribe = session.qmp.subscribe((event) => {
    if (event.event !== "MIGRATION_PASS") return;
    cx.report.passes = Number(event.data.pass);
    session.capture.passBegins(cx.report.passes);
    const nowMs = cx.clock.monotonicMs();
    const seconds = (nowMs - syncs.lastMs) / 1000;
    syncs.lastMs = nowMs;
    // at its first sync QEMU calls every page dirty
    if (cx.report.passes < 2 || nowMs - syncs.askedMs < ASKS_EVERY_MS) return;
    syncs.askedMs = nowMs;
    askWhatIsDirty(session, seconds);
  });
  try {
    const decided = orAborted(Promise.race([session.decision.promise, session.completing.promise]), session.signal);
    const decision = await unlessSilentFor(decided, session, cx);
    if (decision === undefined)
      return { kind: afterSource("copying", "decided"), session, into: "nothing", reason: "" };
    if (decision.kind !== "switch")
      throw new MigrationFault(
        "deadline",
        `The migration was given up: ${"reason" in decision ? decision.reason : decision.kind}`,
        {
          advice: "Allow a longer --deadline or a larger --downtime, or use --on-deadline force",
        },
      );
    const { into, reason } = decision;
    cx.log.info({ reason, into }, "switching");
    return { kind: afterSource("copying", "decided"), session, into, reason };
  } finally {
    unsubscribe();
  }
}
