/** One cell of the matrix: a migration, a fault at a moment of it, what must hold afterwards, and a second attempt. */
import type { Strategy } from "../../shared/protocol/messages.ts";
import type { RigHost } from "../support/rig.ts";
import { Attempt } from "./attempt.ts";
import { type AgentFlags, type FaultRig, FULL_RATE } from "./fault-rig.ts";
import { type Fault, holdsOf, type Moment, victimOf } from "./faults.ts";
import { inject } from "./inject.ts";
import { inspect } from "./inspect.ts";

/** After which the agents must have come to an end by themselves; the limits of both profiles are far below. */
const ENDS_WITHIN_MS = 45_000;
/** With both hosts there, doubt ends by itself. */
const DOUBT_MS = 12_000;

/** `short`: what is for good, or hangs, is given up soon. `patient`: a cut of 5 s while copying is not. */
export type Limits = "default" | "patient" | "short";

/** link.finalGiveUpAfter in all cells but those with the defaults. */
export const FINAL_GIVE_UP_MS = 2000;
const LIMITS: Readonly<Record<Limits, AgentFlags>> = {
  default: { source: [], destination: [] },
  patient: flags("12s"),
  short: flags("3s"),
};

function flags(giveUpAfter: string): AgentFlags {
  const both = ["--qmp-timeout=4s", "--link-keep-alive=1s", `--link-give-up-after=${giveUpAfter}`];
  const source = [
    `--link-final-give-up-after=${FINAL_GIVE_UP_MS}ms`,
    "--link-doubt-after=3s",
    "--handshake-timeout=6s",
  ];
  return { source: [...both, ...source], destination: [...both, "--follow-up=5s"] };
}

export interface Cell {
  readonly name: string;
  readonly fault: Fault;
  readonly moment: Moment;
  readonly limits: Limits;
  /** @default the agents' own choice */
  readonly strategy?: Strategy;
  /** The guest runs at the destination and its pages have ended with the source's QEMU: whoever operates it ends it. */
  readonly strands?: boolean;
  /** The fault ends the only copy of the guest: none may be left. */
  readonly mayLose: boolean | "if it was the only copy";
  /** The destination cannot say any more what became of the grant: `ferry resolve` may be needed. */
  readonly mayDoubt: boolean;
  /** No other end will do. */
  readonly mustMove?: boolean;
  /** The guest may not stand still for longer, whatever becomes of the migration. */
  readonly longestPauseMs?: number;
}

/** `missed`: the victim was gone when the fault was to be done to it. */
export type Outcome = "moved" | "kept" | "resolved, moved" | "resolved, kept" | "lost" | "missed" | "broken";

export interface CellResult {
  readonly cell: Cell;
  readonly outcome: Outcome;
  readonly seconds: number;
  /** Between two heartbeats as they were seen, from the command to the end of the first attempt. */
  readonly longestPauseMs: number;
  /** By the agents, when the guest was moved and the agent that moved it is still there. */
  readonly downtimeMs: number | undefined;
  readonly violations: readonly string[];
}

export async function runCell(on: FaultRig, cell: Cell, { secondAttempt = true } = {}): Promise<CellResult> {
  const startMs = performance.now();
  const run = new CellRun(on, cell);
  try {
    await run.first();
    if (secondAttempt) await run.second();
  } catch (thrown) {
    run.outcome = "broken";
    run.violations.push(thrown instanceof Error ? thrown.message : String(thrown));
  }
  const seconds = (performance.now() - startMs) / 1e3;
  const { outcome, violations, longestPauseMs, downtimeMs } = run;
  return { cell, outcome, seconds, longestPauseMs, downtimeMs, violations };
}

class CellRun {
  outcome: Outcome = "broken";
  longestPauseMs = 0;
  downtimeMs: number | undefined;
  readonly violations: string[] = [];
  readonly #on: FaultRig;
  readonly #cell: Cell;
  #resolved = false;
  #wasLoaded = false;
  #missed = false;

  constructor(on: FaultRig, cell: Cell) {
    this.#on = on;
    this.#cell = cell;
  }

  async first(): Promise<void> {
    const { moment, limits } = this.#cell;
    const on = this.#on;
    await on.revive();
    on.watch.forget();
    await on.prepareAgents(on.at, LIMITS[limits], holdsOf(moment));
    const startMs = performance.now();
    const attempt = await Attempt.start(on, moment, this.#cell.strategy);
    await attempt.reach(moment);
    const status = await this.#strike(attempt);
    await this.#conclude(attempt, status);
    this.longestPauseMs = longestPause(on, startMs);
    const most = this.#cell.longestPauseMs;
    if (most !== undefined && this.outcome !== "lost" && this.longestPauseMs > most)
      this.violations.push(
        `the guest stood still for ${this.longestPauseMs.toFixed(0)} ms, at most ${most} were promised`,
      );
    const view = await attempt.view();
    this.downtimeMs = view === undefined || view === "unknown" ? undefined : view.result?.downtime.totalMs;
    attempt.run.signal("SIGKILL");
  }

  /** The same pair, now that nothing is wrong any more. */
  async second(): Promise<void> {
    const on = this.#on;
    await on.revive();
    const attempt = await Attempt.start(on);
    const status = await attempt.settle({ timeoutMs: ENDS_WITHIN_MS, doubtIsEnd: false });
    if (status !== "moved") this.violations.push(`the second attempt ended as ${status}`);
    const { at, violations } = await inspect(on);
    this.violations.push(...violations.map((one) => `after the second attempt ${one}`));
    if (at !== attempt.to) this.violations.push("the second attempt did not move the guest");
    if (at !== undefined) on.at = at;
    attempt.run.signal("SIGKILL");
    if (this.violations.length === 0 && this.#cell.fault.kind === "kill" && this.#cell.fault.victim.endsWith("agent"))
      await this.#startAgain(attempt);
  }

  /** What agents find in their journals when all is over does not touch the guest. */
  async #startAgain({ from, to }: Attempt): Promise<void> {
    const on = this.#on;
    await Promise.all([on.killAgent(from, "source"), on.killAgent(to, "destination")]);
    await Promise.all([on.restartAgent(from, "source"), on.restartAgent(to, "destination")]);
    const { at, violations } = await inspect(on);
    this.violations.push(...violations.map((one) => `after a restart of the agents ${one}`));
    if (at !== to) this.violations.push("after a restart of the agents no guest runs where it was");
  }

  /** Injects the fault and takes it back when its time has come. @returns how the migration ended */
  async #strike(attempt: Attempt): Promise<string> {
    const { fault, moment } = this.#cell;
    const on = this.#on;
    this.#wasLoaded = attempt.isLoaded();
    const victim = victimOf(fault);
    this.#missed = moment.kind === "after" && victim !== undefined && on.victimPid(victim, attempt.from) === undefined;
    const end = this.#missed ? async () => undefined : await inject(on, fault, attempt.from);
    await on.rig.network.setRate(FULL_RATE);
    attempt.goOn(moment);
    if (fault.kind === "cut" && fault.seconds === undefined) return await this.#endWhileCut(attempt).finally(end);
    if (fault.kind === "reverse" && fault.seconds === undefined)
      await attempt.settle({ timeoutMs: ENDS_WITHIN_MS, doubtIsEnd: true }).finally(end);
    else {
      if (fault.kind !== "kill" && fault.seconds !== undefined) await seconds(fault.seconds);
      await end();
    }
    const status = await attempt.settle({ timeoutMs: ENDS_WITHIN_MS, doubtIsEnd: true });
    return status === "inDoubt" ? await this.#endDoubt(attempt) : status;
  }

  /** What is left there waits for pages for ever. */
  async #endStranded(attempt: Attempt): Promise<void> {
    const view = await attempt.view();
    const code = view === undefined || view === "unknown" ? view : view.error?.code;
    if (code !== "pages-lost") this.violations.push(`pages were lost, and the migration says ${code}`);
    const pid = this.#on.victimPid("destination QEMU", attempt.from);
    if (pid !== undefined) process.kill(pid, "SIGKILL");
    await this.#on.tidyAfterKilledQemu(attempt.to);
  }

  /** The operator does not wait for the link, and is held to what was said when it is whole again. */
  async #endWhileCut(attempt: Attempt): Promise<string> {
    const status = await attempt.settle({ timeoutMs: ENDS_WITHIN_MS, doubtIsEnd: true });
    return status === "inDoubt" ? await this.#resolve(attempt) : status;
  }

  /** It ends by itself, now that the fault is gone; or by the operator's word, where that may be needed. */
  async #endDoubt(attempt: Attempt): Promise<string> {
    const timeoutMs = this.#cell.mayDoubt ? DOUBT_MS / 4 : DOUBT_MS;
    try {
      return await attempt.settle({ timeoutMs, doubtIsEnd: false });
    } catch {
      if (!this.#cell.mayDoubt) this.violations.push("it stayed in doubt though the destination could be asked");
    }
    return await this.#resolve(attempt);
  }

  async #resolve(attempt: Attempt): Promise<string> {
    const ran = this.#on.watch.hasRun(attempt.to, attempt.startedUs);
    const refused = await attempt.resolve(ran ? "destination" : "source");
    if (refused !== "") this.violations.push(refused);
    this.#resolved = true;
    return await attempt.settle({ timeoutMs: DOUBT_MS, doubtIsEnd: false });
  }

  /** A source QEMU is the only copy until another has all of the guest, and a destination QEMU from when it has run. */
  #mayLose(attempt: Attempt): boolean {
    const { fault, mayLose } = this.#cell;
    if (typeof mayLose === "boolean") return mayLose;
    if (fault.kind !== "kill") return false;
    if (fault.victim === "source QEMU") return !this.#wasLoaded;
    return fault.victim === "destination QEMU" && this.#on.watch.hasRun(attempt.to, attempt.startedUs);
  }

  async #conclude(attempt: Attempt, status: string): Promise<void> {
    const on = this.#on;
    const { fault, mustMove } = this.#cell;
    if (fault.kind === "kill" && !this.#missed && victimOf(fault)?.endsWith("QEMU") === true)
      await on.tidyAfterKilledQemu(fault.victim === "source QEMU" ? attempt.from : attempt.to);
    if (this.#cell.strands === true) await this.#endStranded(attempt);
    const { at, violations } = await inspect(on);
    this.violations.push(...violations);
    if (at === undefined) {
      this.outcome = on.rig.qemus().length === 0 ? "lost" : "broken";
      if (!this.#mayLose(attempt)) this.violations.push(`no guest runs: ${this.outcome}, the migration says ${status}`);
      return;
    }
    const moved = at === attempt.to;
    if (this.#missed) this.outcome = "missed";
    else
      this.outcome = moved
        ? this.#resolved
          ? "resolved, moved"
          : "moved"
        : this.#resolved
          ? "resolved, kept"
          : "kept";
    on.at = at;
    if (mustMove === true && !moved) this.violations.push("the guest was to move, and was kept");
    if (status !== "unknown" && (status === "moved") !== moved)
      this.violations.push(`the migration says ${status}, and the guest runs on ${at.name}`);
  }
}

/** The time of a fault that lasts: not a wait for something to happen. */
const seconds = (time: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, time * 1e3));

function longestPause(on: FaultRig, startMs: number): number {
  const seen = hosts(on)
    .flatMap((host) => on.beats(host).map(({ seenAtMs }) => seenAtMs))
    .filter((ms) => ms >= startMs)
    .sort((one, other) => one - other);
  return seen.reduce((longest, ms, index) => Math.max(longest, ms - (seen[index - 1] ?? startMs)), 0);
}

const hosts = (on: FaultRig): readonly RigHost[] => [on.rig.a, on.rig.b];
