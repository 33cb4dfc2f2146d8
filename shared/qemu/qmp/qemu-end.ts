/**
 * Tells why a QEMU has ended, by its event SHUTDOWN, which comes before the end of its monitor (qapi/run-state.json,
 * ShutdownCause). A QEMU that is killed, or crashes, sends no such event.
 */
import { type FaultCode, MigrationFault } from "../../fault.ts";

interface Cause {
  readonly code: FaultCode;
  /** What happened, as a whole sentence without a final period. */
  readonly message: string;
  readonly advice: string;
}

const OFF = "Start the guest again where it is to run, then migrate it";
const NO_REBOOT = "start it without -no-reboot to let it reboot by itself";
const ASK = "Ask who did it; start the guest again where it is to run, then migrate it";

/** The cause is something that the guest has done itself. */
const byGuest = (message: string, advice = OFF): Cause => ({ code: "guest-not-running", message, advice });
/** The cause is something that somebody on the guest's host has done. */
const byHost = (message: string, advice = ASK): Cause => ({ code: "qemu-failed", message, advice });

const CAUSES: ReadonlyMap<string, Cause> = new Map([
  ["guest-shutdown", byGuest("The guest has powered itself off, and its QEMU has ended")],
  [
    "guest-reset",
    byGuest("The guest has reset itself, and its QEMU has ended instead (-no-reboot)", `${OFF}; ${NO_REBOOT}`),
  ],
  ["guest-panic", byGuest("The guest has panicked, and its QEMU has ended", `See the guest's own log. ${OFF}`)],
  ["host-qmp-quit", byHost("Somebody has told the guest's QEMU to quit")],
  [
    "host-qmp-system-reset",
    byHost("Somebody has reset the guest, and its QEMU has ended instead (-no-reboot)", `${OFF}; ${NO_REBOOT}`),
  ],
  ["host-signal", byHost("The guest's QEMU was ended by a signal")],
  ["host-ui", byHost("Somebody has closed the window of the guest's QEMU")],
]);

/** Makes the fault of an event SHUTDOWN. A reason that only a later QEMU knows is quoted as it is. */
export function qemuEnd(reason: string): MigrationFault {
  const known = CAUSES.get(reason);
  const { code, message, advice } = known ?? byHost(`The guest's QEMU has ended (${reason})`);
  return new MigrationFault(code, message, { advice });
}
