/**
 * Acts on the unit of a QEMU that systemd has started as a user of its own (systemd/ferry-guest@.service). An agent of
 * another user can neither signal such a process nor see its open files, so the agent asks systemd to do so. The
 * polkit rule ferry-guests.rules permits the verbs of UnitVerb for these units, and nothing else (docs/decisions/0047).
 */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { constants } from "node:os";

/** How long systemd may take to answer, milliseconds. A start waits for the preparation of the guest's directory. */
const ANSWERS_WITHIN_MS = 20_000;
/** The most output of systemctl that is taken, bytes. It is short: states, and messages of some lines. */
const OUTPUT_BYTES_MAX = 64 << 10;

export type UnitVerb = "start" | "stop" | "kill" | "reload" | "reset-failed";

export const guestUnitName = (guest: string): string => `ferry-guest@${guest}.service`;

/** Finds in /proc/PID/cgroup the unit of a guest, and the guest's name in the name of the unit. */
const IN_CGROUP =
  /^0::\/ferry\.slice\/ferry-guests\.slice\/(?:[\w.\\-]+\.slice\/)*(ferry-guest@([A-Za-z0-9_-][A-Za-z0-9._-]{0,63})\.service)$/m;

export interface GuestUnit {
  readonly unit: string;
  /** Name of the guest. */
  readonly guest: string;
}

/** Finds the unit of a guest that a process is in. @returns undefined for every other process */
export async function unitOf(pid: number): Promise<GuestUnit | undefined> {
  const groups = await readFile(`/proc/${pid}/cgroup`, "latin1").catch(() => "");
  const [, unit, guest] = IN_CGROUP.exec(groups) ?? [];
  return unit === undefined || guest === undefined ? undefined : { unit, guest };
}

/** What systemd knows of a unit. */
export interface UnitState {
  /** `loaded`, or why not: `not-found`, `bad-setting`. */
  readonly load: string;
  /** `inactive`, `active`, `failed` and others. */
  readonly active: string;
  /** The main process; 0 where there is none. */
  readonly pid: number;
  /** The id of the unit's last start; empty for a unit that was never started. */
  readonly invocation: string;
  /** How the last main process has ended: its exit code or its signal. Both are null where it has not ended. */
  readonly end: { readonly code: number | null; readonly signal: NodeJS.Signals | null };
}

/** Runs systemctl. What systemctl says in words is for messages only. */
export class Systemctl {
  private readonly program: string;

  /** @param programs the directory of systemctl; for tests */
  constructor(programs = "/usr/bin") {
    this.program = `${programs}/systemctl`;
  }

  /** Has a verb carried out. @returns systemctl's complaint; undefined when it has done what was asked */
  async tell(verb: UnitVerb, unit: string, ...flags: readonly string[]): Promise<string | undefined> {
    const { failed, said } = await this.run(["--quiet", "--no-ask-password", ...flags, verb, unit]);
    return failed ? said.trim() || "systemctl did not answer" : undefined;
  }

  /** Asks for the state of a unit. @returns undefined when systemd does not answer */
  async show(unit: string): Promise<UnitState | undefined> {
    const names = "LoadState,ActiveState,MainPID,InvocationID,ExecMainCode,ExecMainStatus";
    const { failed, said } = await this.run(["show", `--property=${names}`, unit]);
    if (failed) return undefined;
    const found = new Map(said.split("\n").map((line) => [line.split("=", 1)[0], line.slice(line.indexOf("=") + 1)]));
    return {
      load: found.get("LoadState") ?? "",
      active: found.get("ActiveState") ?? "",
      pid: Number(found.get("MainPID") ?? 0),
      invocation: found.get("InvocationID") ?? "",
      end: endOf(found.get("ExecMainCode"), Number(found.get("ExecMainStatus") ?? 0)),
    };
  }

  private run(args: readonly string[]): Promise<{ readonly failed: boolean; readonly said: string }> {
    const options = { timeout: ANSWERS_WITHIN_MS, maxBuffer: OUTPUT_BYTES_MAX, env: { LC_ALL: "C" } };
    return new Promise((resolve) => {
      execFile(this.program, args, options, (error, stdout, stderr) =>
        resolve({ failed: error !== null, said: error === null ? stdout : `${stderr}${stdout}` || error.message }),
      );
    });
  }
}

/**
 * Tells how a process has ended, from what systemd shows.
 * @param code the code of waitid(2), which is 1 for a process that has exited by itself
 * @param status the exit code of such a process; for other codes, the number of the signal that ended the process
 */
function endOf(code: string | undefined, status: number): UnitState["end"] {
  if (code === "1") return { code: status, signal: null };
  const [signal] = Object.entries(constants.signals).find(([, number]) => number === status) ?? [];
  return { code: null, signal: isSignal(signal) ? signal : null };
}

const isSignal = (name: string | undefined): name is NodeJS.Signals => name !== undefined && name in constants.signals;

/**
 * Kills a process. Where the process is a QEMU of another user, everything in its unit is killed. Never throws: the
 * caller waits for the end of the process, and sees by that whether it ends.
 */
export async function killProcess(pid: number, systemctl = new Systemctl()): Promise<void> {
  try {
    process.kill(pid, "SIGKILL");
  } catch (thrown) {
    if (!(thrown instanceof Error && "code" in thrown && thrown.code === "EPERM")) return;
    const found = await unitOf(pid);
    if (found !== undefined) await systemctl.tell("kill", found.unit, "--signal=SIGKILL");
  }
}
