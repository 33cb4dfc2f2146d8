/** The phase *adopting*: an agent that starts again takes a migration up from its record. */
import { MigrationFault } from "../../../shared/fault.ts";
import {
  afterDestination,
  type DestinationQemu,
  recoverDestination,
} from "../../../shared/protocol/destination-states.ts";
import type { DestinationRecord, QemuProcess } from "../../../shared/protocol/ownership.ts";
import { loadGuest } from "../../../shared/runtime/guest/guest-definition.ts";
import { hasEnded } from "../../../shared/runtime/host/process-identity.ts";
import { findUnwritten, stateOf } from "../../guest/adopted-qemu.ts";
import { GuestProcess } from "../../guest/guest-process.ts";
import { type DestinationContext, destinationRecord, keeperPlaces } from "../destination-context.ts";
import type { DestinationEdgesOf, Next, State } from "../destination-state.ts";
import { noteArrival } from "../note-arrival.ts";
import { removeSockets, startedByOthers } from "./discard.ts";

/**
 * Finds the QEMU of a record, and asks it what it does. Only the process that the record names can be this QEMU, or,
 * where the record names none, a process that an earlier life of this agent started for the guest. A monitor that
 * another client holds, or a QEMU that does not answer, does not count as ended: the phase is tried again, and
 * meanwhile the agent neither starts nor refuses the guest.
 * @throws MigrationFault while the agent cannot tell what the QEMU does
 */
export async function adopt(state: State<"adopting">, cx: DestinationContext): Promise<Next<"adopting">> {
  const { record } = state;
  let guest: GuestProcess | undefined;
  try {
    guest = await findGuest(record, cx);
    if (guest === undefined) await removeSockets(cx);
    const qemu = guest === undefined ? "gone" : await stateOf(guest, record);
    const kind = recoverDestination(record.kind, qemu, record.heard === true);
    cx.log.warn({ record: record.kind, qemu, state: kind }, "taking up a migration from the journal");
    return await takenUp(kind, { record, guest, qemu }, cx);
  } catch (thrown) {
    guest?.letGoAgain();
    cx.onNews(`its QEMU cannot be looked at yet: ${MigrationFault.from(thrown).message}`);
    throw thrown;
  }
}

/**
 * Connects to the QEMU of a record.
 * @returns undefined when its process has ended, or no QEMU waits for this migration
 */
async function findGuest(record: DestinationRecord, cx: DestinationContext): Promise<GuestProcess | undefined> {
  const written = record.qemu;
  if (written !== undefined && (await hasEnded(written))) return undefined;
  const definition = await loadGuest(record.guest, cx.config);
  const process: QemuProcess | undefined = written ?? (await findUnwritten(definition, cx.journal));
  if (process === undefined) return undefined;
  const { qmpTimeoutMs } = cx.config;
  const guest = await GuestProcess.adopt(definition, process, {
    timeoutMs: qmpTimeoutMs,
    signal: cx.stopping,
    clock: cx.clock,
    keeper: keeperPlaces(cx),
    missesPages: record.postcopy !== undefined,
  });
  if (guest === undefined || written !== undefined) return guest;
  // the QEMU of a guest that has arrived keeps the command line of a QEMU that waits, so only QEMU's own answer tells
  // whether it still waits
  const state = await stateOf(guest, record).catch((thrown: unknown) => {
    guest.letGoAgain();
    throw thrown;
  });
  if (state === "loading") return guest;
  guest.letGo();
  return undefined;
}

/** A record, its QEMU, and what that QEMU does. */
interface Found {
  readonly record: DestinationRecord;
  readonly guest: GuestProcess | undefined;
  readonly qemu: DestinationQemu;
}

/** Makes the state in which the migration goes on. */
async function takenUp(
  kind: ReturnType<typeof recoverDestination>,
  { record, guest, qemu }: Found,
  cx: DestinationContext,
): Promise<Next<"adopting">> {
  const fault = new MigrationFault(
    "interrupted",
    record.reason ?? "The destination agent ended during the migration, and started again",
  );
  const undo = guest === undefined ? {} : { guest };
  const postcopy = record.postcopy === undefined ? {} : { postcopy: record.postcopy };
  const to = <K extends DestinationEdgesOf<"adopting">>(next: K) => afterDestination("adopting", next);
  switch (kind) {
    case "loaded":
      return { kind: to("loaded"), guest: present(guest), ...postcopy, loadedAtUs: cx.clock.nowUs() };
    case "starting": {
      const grantedAtUs = cx.clock.nowUs();
      // no `cont` is said to a guest that was granted paused or never granted, nor to a guest that has run: if such a
      // guest is paused now, its operator has paused it
      const grant = {
        ...record.grant,
        paused: record.grant.paused || record.ungranted === true || record.ran === true,
      };
      return { kind: to("starting"), guest: present(guest), ...postcopy, grant, grantedAtUs };
    }
    case "pulling":
      if (record.postcopy === undefined) throw new TypeError("pages are pulled in post-copy");
      return { kind: to("pulling"), guest: present(guest), postcopy: record.postcopy };
    case "refusing":
    case "withheld": {
      // in post-copy pages are missing, so there is no whole copy to keep
      const isWhole = (qemu === "loaded" || qemu === "marked") && record.postcopy === undefined;
      if (kind === "withheld" && isWhole) return { kind: to("withheld"), fault, undo: { guest: present(guest) } };
      return { kind: to("refusing"), fault, undo, isWhole, mayBeRunning: record.kind === "running" };
    }
    case "discarding":
      return { kind: to("discarding"), fault, undo, refused: true };
    case "arrived":
      await noteArrived(record, guest, cx);
      guest?.letGo();
      return { kind: to("arrived") };
    case "lost":
      cx.log.error(
        "the guest was started here, and its QEMU has ended: its source is in doubt until an operator resolves the migration",
      );
      return { kind: to("lost") };
    case "doubled":
      guest?.letGo();
      return { kind: to("doubled"), fault: startedByOthers(cx), isWhole: qemu !== "pulling" };
  }
}

/**
 * Writes `arrived`, unless the record says so already. The agent goes on even if the disk does not take the record:
 * after its next start it finds the guest running again.
 */
async function noteArrived(
  record: DestinationRecord,
  guest: GuestProcess | undefined,
  cx: DestinationContext,
): Promise<void> {
  if (record.kind === "arrived") return;
  // a guest that runs before it was granted was started by somebody other than an agent
  const ungranted = record.kind === "waiting" || record.ungranted === true;
  await noteArrival(destinationRecord(cx, "arrived", guest, { ...record.grant, ungranted }), cx);
}

/** Gives the QEMU of a state that is reached only while its process lives. */
function present(guest: GuestProcess | undefined): GuestProcess {
  if (guest === undefined) throw new TypeError("this state needs the guest's QEMU, and its process has ended");
  return guest;
}
