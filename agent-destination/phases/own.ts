import { MigrationFault } from "../../shared/fault.ts";
import { afterDestination } from "../../shared/protocol/destination-states.ts";
import { type DestinationContext, destinationRecord } from "../destination-context.ts";
import type { State } from "../destination-state.ts";

/** `running` into the journal: the guest is this host's. Only then may it be started (DESIGN 6), if the grant has it so. */
export async function own(state: State<"owning">, cx: DestinationContext): Promise<State<"starting">> {
  const { kind: _, ...whole } = state;
  const grantedAtUs = cx.clock.nowUs();
  // what is written here cannot be refused any more
  if (await state.guest.hasEnded()) throw new MigrationFault("qemu-failed", "The destination's QEMU ended");
  const { postcopy, grant } = state;
  await cx.journal.write(cx.id, destinationRecord(cx, "running", state.guest, { postcopy, paused: grant.paused }));
  return { kind: afterDestination("owning", "written"), ...whole, grantedAtUs };
}
