import { orAborted } from "../../shared/runtime/deferred.ts";
import type { DestinationContext } from "../destination-context.ts";
import type { State } from "../destination-state.ts";

/** Frames go to QEMU until the source says that there are no more, and QEMU has the last byte. */
export async function receive(state: State<"receiving">, _cx: DestinationContext): Promise<State<"loading">> {
  const { guest, receiver } = state;
  await orAborted(receiver.ended.promise, receiver.signal);
  return { kind: "loading", guest, receiver };
}
