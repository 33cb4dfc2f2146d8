/** The phase *pulling*: the guest runs here in post-copy, and its last pages come. */
import { MigrationFault } from "../../../shared/fault.ts";
import { afterDestination } from "../../../shared/protocol/destination-states.ts";
import { orAborted } from "../../../shared/runtime/deferred.ts";
import { processUsage } from "../../../shared/runtime/host/process-usage.ts";
import type { GuestProcess } from "../../guest/guest-process.ts";
import type { Receiver } from "../../replay/receiver.ts";
import { type DestinationContext, destinationRecord } from "../destination-context.ts";
import type { State } from "../destination-state.ts";
import { endableByWord } from "../end-by-word.ts";
import { noteArrival } from "../note-arrival.ts";
import { recoverPostcopy } from "../recover-postcopy.ts";
import { removeSockets } from "./discard.ts";

/** The pause before the first further try to resume post-copy, milliseconds. It doubles with each try. */
const AGAIN_MS = 250;
/**
 * The longest pause between two tries, milliseconds. A source that says that it has no such migration is asked again,
 * because its agent may still be taking the migration up from its journal.
 */
const AGAIN_AT_MOST_MS = 2000;

/** `complete`: QEMU has every page; `gone`: QEMU has ended. */
type Outcome = "complete" | "gone";

/**
 * Fetches the missing pages of a guest that runs here, those that the guest waits for first. The state is over when
 * QEMU has every page, or has ended. A guest whose source does not come back stays in this state until an operator ends
 * its QEMU.
 */
export async function pull(state: State<"pulling">, cx: DestinationContext): Promise<State<"arrived"> | State<"lost">> {
  return await endableByWord(state.guest, cx, () => untilOver(state, cx));
}

/** Resumes post-copy again and again, until QEMU has every page or has ended. */
async function untilOver(
  { guest, postcopy, ...state }: State<"pulling">,
  cx: DestinationContext,
): Promise<State<"arrived"> | State<"lost">> {
  let { receiver } = state;
  let [againMs, told] = [AGAIN_MS, ""];
  while (true) {
    try {
      receiver ??= await recoverPostcopy(guest, postcopy, cx);
      if (receiver !== undefined) cx.onStream(receiver.channel);
      const outcome: Outcome = receiver === undefined ? "complete" : await untilComplete(receiver, cx);
      if (outcome === "gone") return gone(guest, receiver, cx);
      return await arrived(guest, receiver, cx);
    } catch (thrown) {
      if (cx.leaving.aborted) throw thrown;
      if (await guest.hasEnded()) return gone(guest, receiver, cx);
      const { message } = MigrationFault.from(thrown);
      if (message !== told)
        cx.log.warn({ fault: message }, "post-copy is broken; the agent tries again and again to resume it");
      told = message;
      receiver?.close(MigrationFault.from(thrown));
      receiver = undefined;
      await orAborted(cx.clock.sleep(againMs), cx.leaving);
      againMs = Math.min(2 * againMs, AGAIN_AT_MOST_MS);
    }
  }
}

/**
 * Waits until QEMU says that it has every page.
 * @throws MigrationFault when the stream fails, QEMU reports an error, or the agent leaves
 */
async function untilComplete(receiver: Receiver, cx: DestinationContext): Promise<Outcome> {
  const { postcopy } = receiver;
  if (postcopy === undefined) throw new TypeError("pages are pulled in post-copy");
  const error = await orAborted(postcopy.done.promise, AbortSignal.any([receiver.signal, cx.leaving]));
  if (error !== 0)
    throw new MigrationFault("qemu-failed", `The destination's QEMU ended post-copy with error ${error}`);
  return "complete";
}

/**
 * Tells the source that post-copy is complete, leaves the guest's monitor to others, and notes in the journal that the
 * guest has arrived.
 */
async function arrived(
  guest: GuestProcess,
  receiver: Receiver | undefined,
  cx: DestinationContext,
): Promise<State<"arrived">> {
  const usage = processUsage();
  if (receiver?.postcopy !== undefined)
    receiver.channel.send({
      kind: "complete",
      completedAtUs: cx.clock.nowUs(),
      service: receiver.postcopy.service.summary(),
      agentCpuSeconds: usage.cpuSeconds - cx.cpuSecondsBefore,
      agentPeakMemoryBytes: usage.peakMemoryBytes,
    });
  receiver?.close();
  // the capability is switched off again, so that a later migration of this guest finds QEMU as precopy would have left
  // it
  await guest.qmp
    .execute("migrate-set-capabilities", { capabilities: [{ capability: "postcopy-ram", state: false }] })
    .catch((thrown: unknown) =>
      cx.log.warn(
        { fault: MigrationFault.from(thrown).message },
        "QEMU's capability postcopy-ram could not be switched off",
      ),
    );
  guest.letGo();
  await noteArrival(destinationRecord(cx, "arrived", guest), cx);
  return { kind: afterDestination("pulling", "complete") };
}

/** Closes the stream of a QEMU that has ended, and removes the sockets that a killed QEMU leaves. */
async function gone(
  guest: GuestProcess,
  receiver: Receiver | undefined,
  cx: DestinationContext,
): Promise<State<"lost">> {
  const qemu = await guest.lastWords();
  cx.log.error({ qemu }, "the guest ran here, and its QEMU has ended");
  receiver?.close(
    new MigrationFault("qemu-failed", `The guest ran at the destination, and its QEMU has ended: ${qemu}`),
  );
  guest.letGo();
  await removeSockets(cx);
  return { kind: afterDestination("pulling", "gone") };
}
