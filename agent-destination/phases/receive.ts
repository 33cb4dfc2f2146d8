import { MigrationFault } from "../../shared/fault.ts";
import { afterDestination } from "../../shared/protocol/destination-states.ts";
import { orAborted, within } from "../../shared/runtime/deferred.ts";
import type { DestinationContext } from "../destination-context.ts";
import type { State } from "../destination-state.ts";

/** Frames go to QEMU until the source says that there are no more, and QEMU has the last byte. */
export async function receive(state: State<"receiving">, cx: DestinationContext): Promise<State<"loading">> {
  const { guest, receiver } = state;
  const { followUpMs } = cx.config;
  await within(
    orAborted(receiver.begun.promise, receiver.signal),
    followUpMs,
    () =>
      new MigrationFault("peer-lost", `The source sent nothing within ${followUpMs} ms (followUp)`, { role: "source" }),
  );
  await orAborted(Promise.race([receiver.ended.promise, receiver.packaged]), receiver.signal);
  return { kind: afterDestination("receiving", "ended"), guest, receiver };
}
