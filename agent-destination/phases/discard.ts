import { rm } from "node:fs/promises";
import { MigrationFault } from "../../shared/fault.ts";
import type { DestinationContext } from "../destination-context.ts";
import type { State } from "../destination-state.ts";
import { incomingPath } from "./stage.ts";

/** Ends the QEMU of a migration that will not happen. What may have been granted is refused, in the journal first. */
export async function discard(state: State<"discarding">, cx: DestinationContext): Promise<State<"discarded">> {
  const { fault, undo, refusing } = state;
  cx.log.warn({ code: fault.code, reason: fault.message, qemu: await undo.guest?.lastWords() }, "discarding");
  cx.answer.reject(fault);
  if (refusing)
    await cx.journal.write(cx.offer.migrationId, {
      kind: "refused",
      guest: cx.offer.guest.name,
      qemuPid: undo.guest?.pid ?? 0,
      grant: { token: Buffer.from(cx.offer.token).toString("hex"), epoch: 1 },
    });
  else await cx.journal.remove(cx.offer.migrationId).catch((thrown: unknown) => cx.log.debug({ thrown }, "journal"));
  await undo.guest?.discard();
  // a QEMU that ends while it still loads leaves its socket
  await rm(incomingPath(cx), { force: true });
  if (undo.receiver !== undefined) {
    const told = new MigrationFault(fault.code, fault.message);
    undo.receiver.say(told, refusing ? cx.offer.token : new Uint8Array());
    undo.receiver.close();
  }
  return { kind: "discarded", fault };
}
