import { afterDestination } from "../../../shared/protocol/destination-states.ts";
import { writeInTime } from "../../../shared/runtime/journal/write-in-time.ts";
import { unmarkRefused } from "../../guest/refusal-mark.ts";
import { type DestinationContext, destinationRecord } from "../destination-context.ts";
import type { State } from "../destination-state.ts";

/**
 * Writes `running` into the journal: the guest is this host's. Only then may it be started (DESIGN 6), unless it was
 * granted paused.
 */
export async function own(state: State<"owning">, cx: DestinationContext): Promise<State<"starting">> {
  const { kind: _, isMarked, ...whole } = state;
  const { postcopy, grant, guest } = state;
  const grantedAtUs = cx.clock.nowUs();
  // after `running` is written, the end of the QEMU is no refusal any more
  if (await guest.hasEnded()) throw await guest.endFault();
  await writeInTime(cx, destinationRecord(cx, "running", guest, { postcopy, paused: grant.paused }));
  // the mark goes after the record is written: if the agent ends in between, the mark still refuses the guest
  if (isMarked) await unmarkRefused(guest.qmp);
  return { kind: afterDestination("owning", "written"), ...whole, grantedAtUs };
}
