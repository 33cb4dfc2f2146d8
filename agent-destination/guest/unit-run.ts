/**
 * The command of a guest as systemd starts it, in ferry-guest@NAME.service as a user of its own
 * (docs/design/guests-and-units.md#guests-with-users-of-their-own). The agent writes the command into a file that only
 * the agent may write, and that the guest's user may read. The unit makes the guest's directory.
 */
import { chmod, rename, writeFile } from "node:fs/promises";
import { MigrationFault } from "../../shared/fault.ts";
import { type Systemctl, type UnitState, unitOf } from "../../shared/qemu/inspect/guest-unit.ts";
import { type Clock, sleepUnref, systemClock } from "../../shared/runtime/clock.ts";
import { hasEnded, identify } from "../../shared/runtime/host/process-identity.ts";
import type { Command, CommandEnd, CommandRun, OwnUnit } from "./command.ts";

/** How often a process that is no child of this agent is looked at for its end, milliseconds. */
const LOOK_MS = 200;

export interface UnitRunOptions extends OwnUnit {
  readonly command: Command;
  readonly guest: string;
  /** The file that gets what the command writes, in the guest's directory. */
  readonly logPath: string;
  /** @default systemClock */
  readonly clock?: Clock | undefined;
}

/** A command that runs as the main process of its own unit. */
export class UnitRun implements CommandRun {
  readonly pid: number;
  readonly ended: Promise<CommandEnd>;
  private readonly unit: string;
  private readonly systemctl: Systemctl;
  private readonly clock: Clock;

  /**
   * Asks systemd to start the unit.
   * @throws MigrationFault `guest-busy` while the unit has a process; `qemu-start` when systemd does not start it
   */
  static async start(options: UnitRunOptions): Promise<UnitRun> {
    const { unit, guest, systemctl, clock = systemClock } = options;
    const before = await systemctl.show(unit);
    if (before !== undefined && before.active !== "inactive" && before.active !== "failed")
      throw new MigrationFault("guest-busy", `${unit} is ${before.active} at the destination already`, {
        advice: `See what it runs (systemctl status ${unit}); the unit has to end before ${guest} can come here`,
      });
    await writeCommand(options);
    const complaint = await systemctl.tell("start", unit);
    const after = await systemctl.show(unit);
    if (complaint !== undefined && (after?.pid ?? 0) === 0) {
      const hasRun = after !== undefined && after.invocation !== (before?.invocation ?? "");
      if (hasRun) await systemctl.tell("reset-failed", unit);
      throw notStarted(options, complaint, hasRun);
    }
    // the file with the command stays until the next start writes it again: it says no more than the definition
    return new UnitRun(unit, after, systemctl, clock);
  }

  private constructor(unit: string, state: UnitState | undefined, systemctl: Systemctl, clock: Clock) {
    this.unit = unit;
    this.pid = state?.pid ?? 0;
    this.systemctl = systemctl;
    this.clock = clock;
    this.ended = this.follow();
  }

  async isOurs(pid: number): Promise<boolean> {
    return (await unitOf(pid))?.unit === this.unit;
  }

  async kill(pids: readonly number[]): Promise<void> {
    if (pids.length > 0) await this.systemctl.tell("kill", this.unit, "--signal=SIGKILL");
  }

  /** Waits for the end of the main process, and asks systemd how the process has ended. */
  private async follow(): Promise<CommandEnd> {
    const identity = this.pid > 0 ? await identify(this.pid).catch(() => undefined) : undefined;
    // while this host cannot tell, the process is looked at again
    while (identity !== undefined && !(await hasEnded({ pid: this.pid, identity }).catch(() => false)))
      await sleepUnref(this.clock, LOOK_MS);
    const state = await this.systemctl.show(this.unit);
    if (state?.active === "failed") await this.systemctl.tell("reset-failed", this.unit);
    return state?.end ?? { code: null, signal: null };
  }
}

/** Writes the file as a whole, because the unit of an earlier start may still read it. */
async function writeCommand({ command, logPath, commandPath }: UnitRunOptions): Promise<void> {
  const text = `exec >${quoted(logPath)} 2>&1 </dev/null\nexec ${command.map(quoted).join(" ")}\n`;
  try {
    await writeFile(`${commandPath}.new`, text, { mode: 0o600 });
    await chmod(`${commandPath}.new`, 0o644);
    await rename(`${commandPath}.new`, commandPath);
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new MigrationFault("qemu-start", `The command of the guest cannot be written for systemd: ${reason}`, {
      cause: thrown,
      advice: "Make the directories of systemd/ferry.tmpfiles: systemd-tmpfiles --create",
    });
  }
}

/** Writes a text as one word of the shell. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** Makes the fault of a unit that systemd does not start. */
function notStarted({ unit, guest }: UnitRunOptions, complaint: string, hasRun: boolean): MigrationFault {
  const message = `systemd does not start ${unit}, the unit of ${guest}, at the destination: ${complaint}`;
  const advice = hasRun
    ? `See systemctl status ${unit} and journalctl -u ${unit} there`
    : `See that ferry-guests.rules is installed for polkit, and what systemctl start ${unit} says there`;
  return new MigrationFault("qemu-start", message, { advice });
}
