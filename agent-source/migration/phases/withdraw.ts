/** The state *withdrawing*: the guest stays here, and the destination is told so until it has heard it. */
import { MigrationFault } from "../../../shared/fault.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import { writeAtLast } from "../../../shared/runtime/journal/write-at-last.ts";
import { runsHere, tellUntilHeard } from "../ask-destination.ts";
import { keptRecord, type SourceContext } from "../source-context.ts";
import type { State } from "../source-state.ts";
import { twoCopies } from "../two-copies.ts";

/**
 * Tells the destination `kept`. The migration is over for its operator, but the destination keeps its copy until it
 * hears `kept`. So it is told for as long as that takes, also after a restart of this agent.
 */
export async function withdraw(
  { fault }: State<"withdrawing">,
  cx: SourceContext,
): Promise<State<"kept"> | State<"doubled">> {
  cx.report.failed(fault, "");
  const told = await tellUntilHeard(cx, "kept", cx.leaving);
  if (told === "running") {
    const sight = await cx.qemu.look(false);
    if (sight.own === "unknown")
      throw new MigrationFault("qemu-failed", "The destination runs the guest, and the QEMU here cannot be looked at");
    if (runsHere(sight)) return { kind: afterSource("withdrawing", "doubled"), paused: false, fault: twoCopies(cx) };
    // the copy here has ended, and an operator has started the one at the destination
    cx.log.warn({ destination: cx.call.to }, "the destination runs the guest, by its operator's word");
  }
  const otherwise = "the next start of this agent would tell the destination once more";
  await writeAtLast(cx.journal, cx.id, keptRecord(cx, fault, false), { ...cx, otherwise });
  return { kind: afterSource("withdrawing", "heard"), fault };
}
