/** Finds out whether a guest that is offered to this host has a QEMU here already. */
import { MigrationFault, type Refusal } from "../../shared/fault.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { GuestDefinition } from "../../shared/runtime/guest/guest-definition.ts";

/**
 * How long a QEMU that is already at the guest's monitor may take to greet, milliseconds. A monitor that does not greet
 * in time counts as a QEMU as well, since another client may hold it.
 */
const ASK_MS = 1000;
/**
 * How long a guest that runs here is left alone after a look for an offer, milliseconds. QEMU serves one client of its
 * monitor at a time, so without this pause a peer that offers a guest again and again would keep other programs from
 * the monitor.
 */
const LOOK_PAUSE_MS = 2000;

type Guest = Pick<GuestDefinition, "name" | "qmp">;

/**
 * Looks for the QEMUs of guests that are offered. Peers may make offers as often as they like, so there is at most one
 * look at a guest at a time, and all offers that wait for this look have its answer.
 */
export class MonitorLooks {
  private readonly clock: Clock;
  /** The looks that have not ended, by guest. */
  private readonly looks = new Map<string, Promise<readonly Refusal[]>>();
  /** When a guest that was found may be looked at again, monotonic milliseconds. */
  private readonly notBeforeMs = new Map<string, number>();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Looks as whatIsThere() does. A guest that was found less than LOOK_PAUSE_MS ago is looked at after a pause. */
  lookAt(guest: Guest): Promise<readonly Refusal[]> {
    const underWay = this.looks.get(guest.name);
    if (underWay !== undefined) return underWay;
    const look = this.look(guest).finally(() => this.looks.delete(guest.name));
    this.looks.set(guest.name, look);
    return look;
  }

  private async look(guest: Guest): Promise<readonly Refusal[]> {
    const pauseMs = (this.notBeforeMs.get(guest.name) ?? 0) - this.clock.monotonicMs();
    if (pauseMs > 0) await this.clock.sleep(pauseMs);
    const found = await whatIsThere(guest, this.clock);
    // no pause is needed after a look that found no QEMU: no other program could wait for its monitor
    if (found.length === 0) this.notBeforeMs.delete(guest.name);
    else this.notBeforeMs.set(guest.name, this.clock.monotonicMs() + LOOK_PAUSE_MS);
    return found;
  }
}

/**
 * Looks whether a process answers at the guest's monitor.
 * @returns the reason against the offer: a QEMU is at the monitor, or this agent may not connect to it. Empty where no
 *   process listens there
 */
export async function whatIsThere({ name, qmp }: Guest, clock: Clock): Promise<readonly Refusal[]> {
  try {
    (await QmpClient.connect(qmp, { timeoutMs: ASK_MS }, clock)).close();
  } catch (thrown) {
    const { code } = MigrationFault.from(thrown);
    if (code === "qmp-unreachable") return [];
    if (code === "qmp-forbidden") return [refusalOf(thrown, "The destination: ")];
  }
  return [{ code: "guest-exists", message: `${name} has a QEMU at the destination already, which answers at ${qmp}` }];
}

/**
 * Makes a reason of a refusal from a fault. The advice becomes a part of the message, since a reason has no field for
 * it.
 */
export function refusalOf(thrown: unknown, prefix = ""): Refusal {
  const { code, message, advice } = MigrationFault.from(thrown);
  return { code, message: `${prefix}${message}${advice === undefined ? "" : `. ${advice}`}` };
}
