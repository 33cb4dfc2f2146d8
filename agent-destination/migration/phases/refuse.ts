/**
 * The phases *refusing* and *withheld*: the guest is not to run here. The refusal is made durable first, and then the
 * source is told, while a whole copy is kept.
 */
import { MigrationFault } from "../../../shared/fault.ts";
import { afterDestination } from "../../../shared/protocol/destination-states.ts";
import { onceAborted } from "../../../shared/runtime/deferred.ts";
import { orLogged } from "../../../shared/runtime/journal/journal-log.ts";
import { writeInTime } from "../../../shared/runtime/journal/write-in-time.ts";
import { stateOf } from "../../guest/adopted-qemu.ts";
import type { GuestProcess } from "../../guest/guest-process.ts";
import { isMarkedRefused, markRefused } from "../../guest/refusal-mark.ts";
import { type DestinationContext, destinationRecord } from "../destination-context.ts";
import type { State, Undo } from "../destination-state.ts";
import { hasStarted, noteStarted, onceStarted } from "../started-by-others.ts";
import { ownGrant } from "./await-grant.ts";
import { say, startedByOthers } from "./discard.ts";

/**
 * Makes the refusal as durable as the copy that it refuses, before the source is told (docs/decisions/0043, rule 6).
 * The refusal is written into the journal, or, where the disk does not take the record, into QEMU as a mark. A QEMU
 * that has ended needs neither, unless the journal may say that the guest was started.
 * @throws MigrationFault while neither can be done
 */
export async function refuse(
  state: State<"refusing">,
  cx: DestinationContext,
): Promise<State<"withheld"> | State<"discarding"> | State<"arrived"> | State<"pulling">> {
  const { fault, undo, mayBeRunning } = state;
  const { guest } = undo;
  const startedFirst = await startedBefore(undo, cx);
  if (startedFirst !== undefined) return startedFirst;
  const isWhole = state.isWhole ?? (await isLoaded(guest));
  try {
    await writeInTime(cx, destinationRecord(cx, "refused", guest, { reason: fault.message }));
  } catch (thrown) {
    const { message } = MigrationFault.from(thrown);
    cx.log.warn({ fault: message }, "the journal does not take the refusal");
    cx.onNews(`it is refused, and the journal of this agent cannot be written: ${message}`);
    const hasEnded = guest === undefined || (await guest.hasEnded());
    if (hasEnded && mayBeRunning) throw thrown;
    if (!hasEnded) await markRefused(guest.qmp);
  }
  // the guest may have been started while the record was written, and the source has not been told of the refusal yet
  const startedSince = await startedBefore(undo, cx);
  if (startedSince !== undefined) return startedSince;
  if (guest !== undefined && isWhole && !(await guest.hasEnded()))
    return { kind: afterDestination("refusing", "written"), fault, undo: { ...undo, guest } };
  return { kind: afterDestination("refusing", "empty"), fault, undo, refused: true };
}

/**
 * Looks whether somebody other than an agent has started the guest. The refusal of such a guest is dropped, which is
 * possible because no source was told of it.
 * @returns the state that follows then; undefined when the guest was not started
 */
async function startedBefore(
  { guest, receiver }: Undo,
  cx: DestinationContext,
): Promise<State<"arrived"> | State<"pulling"> | undefined> {
  if (guest === undefined || !(await hasStarted(guest))) return undefined;
  const postcopy = receiver?.postcopy?.isActive === true ? receiver.record : undefined;
  await noteStarted(guest, postcopy, cx);
  if (postcopy === undefined) return { kind: afterDestination("refusing", "started") };
  return { kind: afterDestination("refusing", "startedPulling"), guest, postcopy, ...(receiver && { receiver }) };
}

/**
 * Tells whether QEMU has the whole guest. A QEMU that does not tell counts as one that has, so that its copy is kept.
 */
async function isLoaded(guest: GuestProcess | undefined): Promise<boolean> {
  if (guest === undefined || (await guest.hasEnded())) return false;
  const state = await stateOf(guest, { kind: "waiting" }).catch(() => "loaded");
  return state !== "loading";
}

type Ends = State<"discarding"> | State<"owning"> | State<"doubled">;

/**
 * Tells the source of the refusal, and keeps the copy until the source says that it needs none. If the source's host is
 * lost before it has heard the refusal, this copy is the only one, and an operator may start it.
 */
export async function withhold(state: State<"withheld">, cx: DestinationContext): Promise<Ends> {
  const { fault, undo } = state;
  const { guest, receiver } = undo;
  cx.log.warn(
    { code: fault.code, reason: fault.message },
    "refused; the copy is kept until the source has heard of the refusal",
  );
  const over = new AbortController();
  say(undo, fault, cx.token);
  const first = await Promise.race([
    onceAborted(cx.unneeded, over.signal).then(() => "heard" as const),
    // a source that is in contact is about to say that it has heard the refusal, so the agent waits for that until
    // `leaving`, which comes after `stopping`
    onceAborted(receiver?.channel.isCut === false ? cx.leaving : cx.stopping, over.signal).then(
      () => "stopping" as const,
    ),
    // while this QEMU keeps locks of the images, the source cannot start its guest, and so never says `kept`. A source
    // that says `withdraw` has seen that its own QEMU lives, and that QEMU's copy of the guest is enough
    ...(guest.keepsLocks ? [onceAborted(cx.withdrawn, over.signal).then(() => "heard" as const)] : []),
    // an older source says only `failure`, and never `kept`
    ...(receiver === undefined || cx.saysKept ? [] : [receiver.gaveUp.promise.then(() => "heard" as const)]),
    guest.ended.then(() => "gone" as const),
    onceStarted(guest, over.signal).then(() => "started" as const),
    cx.claims.ask(),
  ]).finally(() => {
    over.abort();
    cx.claims.forget();
  });
  switch (first) {
    case "stopping":
      throw MigrationFault.from(cx.stopping.reason);
    case "here": {
      cx.log.warn("the operator starts the guest here, although it was refused");
      const isMarked = await isMarkedRefused(guest.qmp);
      const whole = receiver === undefined ? { guest } : { guest, receiver };
      return {
        kind: afterDestination("withheld", "claimed"),
        ...whole,
        grant: ownGrant(cx),
        isMarked,
      };
    }
    case "started":
      guest.letGo();
      receiver?.close();
      return { kind: afterDestination("withheld", "started"), fault: startedByOthers(cx), isWhole: true };
    case "gone":
      return { kind: afterDestination("withheld", "gone"), fault, undo, refused: true };
    case "heard":
    case "end":
      // by this record an agent that starts again does not keep the copy. If the disk does not take the record, an
      // operator has to end that copy
      await orLogged(
        writeInTime(cx, destinationRecord(cx, "refused", guest, { reason: fault.message, heard: true })),
        cx.log,
      );
      return { kind: afterDestination("withheld", "heard"), fault, undo, refused: true };
  }
}
