/** The phase *discarding*: the migration will not happen, and nothing of it is to be left. */
import { MigrationFault } from "../../../shared/fault.ts";
import { afterDestination } from "../../../shared/protocol/destination-states.ts";
import { removeLeft } from "../../../shared/runtime/files/remove-left.ts";
import { orLogged } from "../../../shared/runtime/journal/journal-log.ts";
import { type DestinationContext, keeperPlaces } from "../destination-context.ts";
import type { State, Undo } from "../destination-state.ts";
import { hasStarted } from "../started-by-others.ts";
import { incomingPath } from "./stage.ts";

/**
 * Tells the source first, since the guest may stand still at the source until the source knows. Then ends the QEMU,
 * unless somebody other than an agent has started the guest in it.
 */
export async function discard(
  state: State<"discarding">,
  cx: DestinationContext,
): Promise<State<"discarded"> | State<"doubled">> {
  const { fault, undo, refused } = state;
  cx.log.warn({ code: fault.code, reason: fault.message, qemu: await undo.guest?.lastWords() }, "discarding");
  say(undo, fault, refused ? cx.token : new Uint8Array());
  cx.answer.reject(fault);
  if (undo.guest !== undefined && (await hasStarted(undo.guest))) {
    undo.guest.letGo();
    undo.receiver?.close();
    const isWhole = undo.receiver?.postcopy?.isActive !== true;
    return { kind: afterDestination("discarding", "started"), fault: startedByOthers(cx), isWhole };
  }
  await clearAway(undo, cx);
  undo.receiver?.close();
  await orLogged(refused ? noteEnded(cx) : cx.journal.remove(cx.id), cx.log);
  return { kind: afterDestination("discarding", "done"), fault };
}

/**
 * Notes `heard` in the record of a refusal, so that the next agent looks for no copy. The record stays, for a source
 * that asks late.
 */
async function noteEnded(cx: DestinationContext): Promise<void> {
  const record = await cx.journal.read(cx.id);
  if (record?.kind === "refused" && record.heard !== true) await cx.journal.write(cx.id, { ...record, heard: true });
}

/** Makes the fault of a copy that was refused and that somebody other than an agent has started. */
export const startedByOthers = (cx: DestinationContext): MigrationFault =>
  new MigrationFault(
    "two-copies",
    `Somebody has started ${cx.guest} here, although its migration from ${cx.source} was refused: it may run there too`,
    {
      guestNow: "the guest runs here, and its source was told that it does not",
      advice:
        "Pause this copy at once (QMP stop), look whether the guest runs at its source, then end one of the two copies",
    },
  );

/**
 * Tells the source by the stream, if there is one, that the migration has failed.
 * @param refusedToken proves to the source that its grant is refused; empty where nothing is refused
 */
export function say({ receiver }: Undo, fault: MigrationFault, refusedToken: Uint8Array): void {
  receiver?.say(new MigrationFault(fault.code, fault.message), refusedToken);
}

/** Ends the QEMU, and removes its files. A QEMU that ends while it still loads leaves the socket of its stream. */
async function clearAway({ guest }: Undo, cx: DestinationContext): Promise<void> {
  await guest?.discard();
  await removeSockets(cx);
}

/** Removes the sockets of a migration whose QEMU has ended. */
export async function removeSockets(cx: DestinationContext): Promise<void> {
  for (const path of [incomingPath(cx), ...Object.values(keeperPlaces(cx))]) await removeLeft(path);
}
