import { setTimeout as delay } from "node:timers/promises";
import { MigrationFault } from "../../../shared/fault.ts";
import { afterDestination } from "../../../shared/protocol/destination-states.ts";
import { hasRun, PAUSED_STATES } from "../../../shared/qemu/inspect/preflight.ts";
import { orAborted, within } from "../../../shared/runtime/deferred.ts";
import { writeInTime } from "../../../shared/runtime/journal/write-in-time.ts";
import { tryImages } from "../../guest/guest-images.ts";
import type { GuestProcess } from "../../guest/guest-process.ts";
import type { Receiver } from "../../replay/receiver.ts";
import { type DestinationContext, destinationRecord } from "../destination-context.ts";
import type { State } from "../destination-state.ts";

const LOADS_WITHIN_MS = 60_000;
const POLL_MS = 2;

/** QEMU takes the device state and is paused, with the whole guest. */
export async function load(state: State<"loading">, cx: DestinationContext): Promise<State<"loaded">> {
  const { guest, receiver } = state;
  // QEMU has all that it needs. If the link breaks now, what may become the only whole copy must not be thrown away
  receiver.channel.setPatience(Number.POSITIVE_INFINITY);
  if (receiver.postcopy?.isActive) {
    const isStarted = await packageLoaded(guest, receiver, cx);
    const { record: postcopy } = receiver;
    if (postcopy === undefined) throw new TypeError("post-copy without a layout");
    // a guest that runs has its images, and must not lose them
    if (!isStarted) await tryImages(guest, receiver.disks);
    const loadedAtUs = cx.clock.nowUs();
    await writeInTime(cx, destinationRecord(cx, "waiting", guest, { postcopy }));
    return { kind: afterDestination("loading", "loaded"), guest, receiver, postcopy, loadedAtUs, isStarted };
  }
  const completed = waitLoaded(guest, receiver);
  // when the stream fails first, nobody waits for this any more
  completed.catch(() => undefined);
  await within(
    orAborted(receiver.replay.drained(), receiver.signal),
    LOADS_WITHIN_MS,
    () =>
      new MigrationFault(
        "timeout",
        `The destination's QEMU did not take the guest's last bytes in ${LOADS_WITHIN_MS} ms`,
      ),
  );
  await completed;
  const { status } = await guest.qmp.execute("query-status");
  // somebody has said `cont` to the QEMU while it loaded, and it runs the guest as soon as it has it
  const isStarted = hasRun(status);
  // QEMU makes it what it was at the source, where it was paused; one that ran, paused (-S)
  if (!isStarted && !PAUSED_STATES.includes(status))
    throw new MigrationFault("qemu-failed", `The destination's QEMU is ${status} after loading, not paused`);
  if (!isStarted) await tryImages(guest, receiver.disks);
  return { kind: afterDestination("loading", "loaded"), guest, receiver, loadedAtUs: cx.clock.nowUs(), isStarted };
}

/**
 * Waits until post-copy's package has been carried out to its RUN, which leaves a QEMU that was started with -S paused.
 * No event says so.
 * @returns whether somebody else has started the guest meanwhile
 */
async function packageLoaded(guest: GuestProcess, receiver: Receiver, cx: DestinationContext): Promise<boolean> {
  const deadline = cx.clock.monotonicMs() + LOADS_WITHIN_MS;
  while (true) {
    receiver.signal.throwIfAborted();
    const { status } = await guest.qmp.execute("query-status");
    if (status === "paused") return false;
    if (hasRun(status)) return true;
    const { status: migration, "error-desc": description } = await guest.qmp.execute("query-migrate");
    if (migration === "failed")
      throw new MigrationFault(
        "qemu-failed",
        `The destination's QEMU could not load the guest: ${description ?? "see its log"}`,
      );
    if (cx.clock.monotonicMs() > deadline)
      throw new MigrationFault("timeout", `The destination's QEMU is ${status} and its migration ${migration}`);
    await delay(POLL_MS);
  }
}

/** The event may have come already: QEMU loads as fast as it is fed. */
async function waitLoaded(guest: GuestProcess, receiver: Receiver): Promise<void> {
  const options = { timeoutMs: LOADS_WITHIN_MS, signal: receiver.signal };
  const event = guest.qmp.waitFor(
    "MIGRATION",
    (one) => one.data.status === "completed" || one.data.status === "failed",
    options,
  );
  event.catch(() => undefined);
  const { status } = await guest.qmp.execute("query-migrate");
  if (status === "completed") return;
  if (status === "failed" || (await event).data.status === "failed") {
    const { "error-desc": description } = await guest.qmp.execute("query-migrate");
    throw new MigrationFault(
      "qemu-failed",
      `The destination's QEMU could not load the guest: ${description ?? "see its log"}`,
    );
  }
}
