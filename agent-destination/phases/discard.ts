import { rm } from "node:fs/promises";
import { MigrationFault } from "../../shared/fault.ts";
import { afterDestination } from "../../shared/protocol/destination-states.ts";
import type { DestinationContext } from "../destination-context.ts";
import type { State, Undo } from "../destination-state.ts";
import { incomingPath } from "./stage.ts";

/** Says so first, since a guest may be paused for the answer; then the QEMU of a migration that will not happen ends. */
export async function discard(state: State<"discarding">, cx: DestinationContext): Promise<State<"discarded">> {
  const { fault, undo, refused } = state;
  cx.log.warn({ code: fault.code, reason: fault.message, qemu: await undo.guest?.lastWords() }, "discarding");
  say(undo, fault, refused ? cx.token : new Uint8Array());
  await clearAway(undo, cx);
  undo.receiver?.close();
  // a refusal stays, for a source that asks late
  if (!refused)
    await cx.journal
      .remove(cx.id)
      .catch((thrown: unknown) => cx.log.warn({ fault: MigrationFault.from(thrown).message }, "journal"));
  cx.answer.reject(fault);
  return { kind: afterDestination("discarding", "done"), fault };
}

export function say({ receiver }: Undo, fault: MigrationFault, refusedToken: Uint8Array): void {
  receiver?.say(new MigrationFault(fault.code, fault.message), refusedToken);
}

/** Ends the QEMU, and removes what it leaves: one that ends while it still loads leaves its socket. */
export async function clearAway({ guest }: Undo, cx: DestinationContext): Promise<void> {
  await guest?.discard();
  await rm(incomingPath(cx), { force: true });
}
