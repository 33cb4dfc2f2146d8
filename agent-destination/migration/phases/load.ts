/** The phase *loading*: QEMU has every byte, or in post-copy its package, and finishes loading the guest. */
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

/**
 * How long each of the two steps of loading may take, milliseconds: QEMU takes the last bytes of its stream, and QEMU
 * loads the guest.
 */
const LOADS_WITHIN_MS = 60_000;
/**
 * The pause between two looks at QEMU's state, milliseconds. Up to this much is added to the downtime of a switch to
 * post-copy.
 */
const POLL_MS = 2;

/**
 * Waits until QEMU has loaded the guest (in post-copy its device state) and is paused. Then QEMU tries whether it can
 * use the guest's images, while the source can still take the guest back.
 */
export async function load(state: State<"loading">, cx: DestinationContext): Promise<State<"loaded">> {
  const { guest, receiver } = state;
  // QEMU has all that it needs, and its copy may become the only whole one. So the copy is kept even if the link breaks
  receiver.channel.setPatience(Number.POSITIVE_INFINITY);
  if (receiver.postcopy?.isActive) {
    const isStarted = await packageLoaded(guest, receiver, cx);
    const { record: postcopy } = receiver;
    if (postcopy === undefined) throw new TypeError("post-copy without a layout");
    // the images of a guest that runs are active, and the trial would make them inactive
    if (!isStarted) await tryImages(guest, receiver.disks);
    const loadedAtUs = cx.clock.nowUs();
    await writeInTime(cx, destinationRecord(cx, "waiting", guest, { postcopy }));
    return { kind: afterDestination("loading", "loaded"), guest, receiver, postcopy, loadedAtUs, isStarted };
  }
  const completed = waitLoaded(guest, receiver);
  // when the stream fails first, `completed` is not awaited any more
  completed.catch(() => undefined);
  await within(
    orAborted(receiver.replay.drained(), receiver.signal),
    LOADS_WITHIN_MS,
    () =>
      new MigrationFault(
        "timeout",
        `The destination's QEMU did not take the guest's last bytes in ${LOADS_WITHIN_MS} ms`,
      ),
    cx.clock,
  );
  await completed;
  const { status } = await guest.qmp.execute("query-status");
  // somebody may have said `cont` to QEMU while it loaded: it then runs the guest as soon as it has the guest
  const isStarted = hasRun(status);
  // a guest that was paused at the source keeps that state here, and one that ran is paused because of -S
  if (!isStarted && !PAUSED_STATES.includes(status))
    throw new MigrationFault("qemu-failed", `The destination's QEMU is ${status} after loading, not paused`);
  if (!isStarted) await tryImages(guest, receiver.disks);
  return { kind: afterDestination("loading", "loaded"), guest, receiver, loadedAtUs: cx.clock.nowUs(), isStarted };
}

/**
 * Waits until QEMU has carried out post-copy's package up to its command RUN. A QEMU that was started with -S is paused
 * then. QEMU sends no event for this, so it is asked again and again.
 * @returns whether somebody other than an agent has started the guest meanwhile
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
      throw new MigrationFault(
        "timeout",
        `The destination's QEMU has not loaded the package in ${LOADS_WITHIN_MS} ms: it is ${status}, its migration ${migration}`,
      );
    await cx.clock.sleep(POLL_MS);
  }
}

/**
 * Waits until QEMU has loaded the guest. QEMU loads as fast as it is fed, so the event may have come already, and QEMU
 * is asked as well.
 */
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
