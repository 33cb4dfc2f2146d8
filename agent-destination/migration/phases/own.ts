/**
 * The phase *owning*: the grant has come, and the agent writes into its journal that the guest belongs to this host.
 */
import { afterDestination } from "../../../shared/protocol/destination-states.ts";
import { writeInTime } from "../../../shared/runtime/journal/write-in-time.ts";
import { unmarkRefused } from "../../guest/refusal-mark.ts";
import { type DestinationContext, destinationRecord } from "../destination-context.ts";
import type { State } from "../destination-state.ts";

/**
 * Writes `running` into the journal: from then on the guest belongs to this host. Only after that may *starting* say
 * `cont`, and not even then for a guest that was granted paused (docs/decisions/0043, rule 11).
 */
export async function own(state: State<"owning">, cx: DestinationContext): Promise<State<"starting">> {
  const { kind: _, isMarked, ...whole } = state;
  const { postcopy, grant, guest } = state;
  const grantedAtUs = cx.clock.nowUs();
  // once `running` is written, the end of QEMU does not count as a refusal any more, so the agent looks for it before
  if (await guest.hasEnded()) throw await guest.endFault();
  await writeInTime(cx, destinationRecord(cx, "running", guest, { postcopy, paused: grant.paused }));
  // the mark is removed after the record is written: if the agent ends in between, the mark still refuses the guest
  if (isMarked) await unmarkRefused(guest.qmp);
  return { kind: afterDestination("owning", "written"), ...whole, grantedAtUs };
}
