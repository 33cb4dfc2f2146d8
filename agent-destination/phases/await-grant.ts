import { MigrationFault } from "../../shared/fault.ts";
import { destinationMayRun, type OwnershipGrant } from "../../shared/protocol/ownership.ts";
import { orAborted } from "../../shared/runtime/deferred.ts";
import type { DestinationContext } from "../destination-context.ts";
import type { State } from "../destination-state.ts";

/** Loaded and paused, until the source gives the guest away. */
export async function awaitGrant(state: State<"loaded">, cx: DestinationContext): Promise<State<"owning">> {
  const { guest, receiver } = state;
  const { token, epoch } = await orAborted(receiver.grant.promise, receiver.signal);
  const grant: OwnershipGrant = { token: Buffer.from(token).toString("hex"), epoch };
  const record = await cx.journal.read(cx.offer.migrationId);
  if (!destinationMayRun(record, grant, Buffer.from(cx.offer.token).toString("hex")))
    throw new MigrationFault("peer-invalid", "The source sent a grant that is not this migration's", {
      role: "source",
    });
  return { kind: "owning", guest, receiver, grant };
}
