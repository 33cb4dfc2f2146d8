import { afterDestination } from "../../shared/protocol/destination-states.ts";
import { type DestinationContext, destinationRecord } from "../destination-context.ts";
import type { State } from "../destination-state.ts";
import { clearAway, say } from "./discard.ts";

/** `refused` into the journal; only then may it be said (DESIGN 6). */
export async function refuse(state: State<"refusing">, cx: DestinationContext): Promise<State<"discarding">> {
  const { fault, undo } = state;
  await cx.journal.write(cx.id, destinationRecord(cx, "refused", undo.guest));
  return { kind: afterDestination("refusing", "written"), fault, undo, refused: true };
}

/** The journal does not take it: a guest whose QEMU has ended is refused without a record. */
export async function remove(state: State<"removing">, cx: DestinationContext): Promise<State<"discarded">> {
  const { fault, undo } = state;
  await clearAway(undo, cx);
  say(undo, fault, cx.token);
  undo.receiver?.close();
  return { kind: afterDestination("removing", "done"), fault };
}
