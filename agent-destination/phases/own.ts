import { MigrationFault } from "../../shared/fault.ts";
import { afterDestination } from "../../shared/protocol/destination-states.ts";
import { type DestinationContext, destinationRecord } from "../destination-context.ts";
import type { State } from "../destination-state.ts";

/** `running` into the journal; only then may the guest be started (DESIGN 6). */
export async function own(state: State<"owning">, cx: DestinationContext): Promise<State<"starting">> {
  const { kind: _, ...whole } = state;
  const grantedAtUs = cx.clock.nowUs();
  // what is written here cannot be refused any more
  if (await state.guest.hasEnded()) throw new MigrationFault("qemu-failed", "The destination's QEMU ended");
  await cx.journal.write(cx.id, destinationRecord(cx, "running", state.guest, state.postcopy));
  return { kind: afterDestination("owning", "written"), ...whole, grantedAtUs };
}
