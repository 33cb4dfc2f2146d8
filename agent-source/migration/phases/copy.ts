/** The state *copying*: pages flow while the guest runs, until the switchover begins. */
import { MigrationFault } from "../../../shared/fault.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import { orAborted } from "../../../shared/runtime/deferred.ts";
import { unlessSilentFor } from "../await-answer.ts";
import type { SourceContext } from "../source-context.ts";
import type { State } from "../source-state.ts";

/**
 * Copies until the policy decides to switch over, or until QEMU completes by itself because the guest stands still.
 * @throws MigrationFault `deadline` when the policy gives the migration up
 */
export async function copy(state: State<"copying">, cx: SourceContext): Promise<State<"switching">> {
  const { session } = state;
  cx.report.follow(session);
  const unsubscribe = session.qmp.subscribe((event) => {
    if (event.event !== "MIGRATION_PASS") return;
    cx.report.passes = Number(event.data.pass);
    session.capture.passBegins(cx.report.passes);
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
    // once pages are no longer copied there is nothing to foresee
    cx.report.foresees("");
  }
}
