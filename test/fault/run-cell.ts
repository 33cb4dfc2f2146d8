/** Runs one cell: a migration, its fault at its moment, what must hold afterwards, and a second attempt. */
import { isPostcopy } from "../../shared/protocol/strategies.ts";
import type { RigHost } from "../support/rig.ts";
import { Attempt, MomentMissed } from "./attempt.ts";
import { type Cell, type CellResult, LIMITS, type Outcome } from "./cell.ts";
import { Doubts, ENDS_WITHIN_MS } from "./doubts.ts";
import { type FaultRig, FULL_RATE } from "./fault-rig.ts";
import { ENDS_QEMU, type Fault, type Hold, holdsOf, type Moment, partsOf, secondsOf, victimOf } from "./faults.ts";
import { type Committed, hostOf, inject } from "./inject.ts";
import { inspect } from "./inspect.ts";
import { Supervisor, supervised } from "./supervisor.ts";
import { sayWords } from "./words.ts";

/** How long an agent may take to find that no page comes any more, milliseconds. */
const STRANDS_WITHIN_MS = 15_000;

/** How often a cell is tried at most while its migration ends before the moment of the fault. */
const TRIES = 3;

/**
 * Runs a cell. If its migration ends before the moment of the fault, the cell is run again, at most TRIES times in all.
 * What goes wrong in the cell is a violation in the result.
 */
export async function runCell(on: FaultRig, cell: Cell, { secondAttempt = true } = {}): Promise<CellResult> {
  for (let tries = 1; ; tries++) {
    const result = await tryCell(on, cell, secondAttempt);
    if (result.missedItsMoment !== true || tries === TRIES) return result;
    await on.reset();
  }
}

/** Runs a cell once. It never rejects: what goes wrong is a violation in the result. */
async function tryCell(on: FaultRig, cell: Cell, secondAttempt: boolean): Promise<CellResult> {
  const startMs = performance.now();
  const run = new CellRun(on, cell);
  let missedItsMoment = false;
  try {
    await run.first();
    if (secondAttempt) await run.second();
  } catch (thrown) {
    run.outcome = "broken";
    missedItsMoment = thrown instanceof MomentMissed;
    run.violations.push(thrown instanceof Error ? thrown.message : String(thrown));
  } finally {
    await run.close();
  }
  const seconds = (performance.now() - startMs) / 1e3;
  const { outcome, violations, longestPauseMs, downtimeMs } = run;
  return { cell, outcome, seconds, longestPauseMs, downtimeMs, violations, missedItsMoment };
}

class CellRun {
  outcome: Outcome = "broken";
  longestPauseMs = 0;
  downtimeMs: number | undefined;
  readonly violations: string[] = [];
  readonly #on: FaultRig;
  readonly #cell: Cell;
  readonly #doubts: Doubts;
  /** The faults that last and are taken back later, the last one first. */
  #lasting: Committed[] = [];
  #supervisors: readonly Supervisor[] = [];
  /** True when a whole copy of the guest was there after the fault, in a QEMU that lived. */
  #copyWasLeft = false;
  #wasLoaded = false;
  #missed = false;
  /** True once a supervisor has started the guest, which is then another life of it. */
  #isAnew = false;

  constructor(on: FaultRig, cell: Cell) {
    this.#on = on;
    this.#cell = cell;
    this.#doubts = new Doubts(on, cell, this.violations, () => this.#disableSupervisors());
  }

  /** Makes the first attempt, with the fault at its moment. */
  async first(): Promise<void> {
    const { moment, limits, strategy, supervisor } = this.#cell;
    const on = this.#on;
    await on.revive();
    on.forgetLife();
    await on.prepareAgents(on.at, LIMITS[limits], holdsOf(moment));
    const startMs = performance.now();
    if (supervisor !== undefined)
      this.#supervisors = supervised(on, supervisor).map((host) => new Supervisor(on, host, supervisor));
    const attempt = await Attempt.start(on, moment, strategy);
    await this.#reach(attempt, moment);
    const status = await this.#strike(attempt);
    await this.#conclude(attempt, status);
    this.longestPauseMs = on.longestPause(startMs);
    const most = this.#cell.longestPauseMs;
    if (most !== undefined && this.outcome !== "lost" && this.longestPauseMs > most)
      this.violations.push(
        `the guest stood still for ${this.longestPauseMs.toFixed(0)} ms, at most ${most} were promised`,
      );
    const view = await attempt.view();
    this.downtimeMs = view === undefined || view === "unknown" ? undefined : view.result?.downtime.totalMs;
    await this.#disableSupervisors();
    if (this.#lasting.length > 0) await this.#mendAll(attempt);
    attempt.run.signal("SIGKILL");
  }

  /** Makes the second attempt with the same pair of agents, when nothing is wrong any more. */
  async second(): Promise<void> {
    const on = this.#on;
    await on.revive();
    const attempt = await Attempt.start(on);
    const status = await attempt.settle({ timeoutMs: ENDS_WITHIN_MS, doubtIsEnd: false });
    if (status !== "moved") this.violations.push(`the second attempt ended as ${status}`);
    const { at, violations } = await inspect(on, this.#excused);
    this.violations.push(...violations.map((one) => `after the second attempt ${one}`));
    if (at !== attempt.to) this.violations.push("the second attempt did not move the guest");
    if (at !== undefined) on.at = at;
    attempt.run.signal("SIGKILL");
    if (this.violations.length === 0 && partsOf(this.#cell.fault).some(endsAgent)) await this.#startAgain(attempt);
  }

  async close(): Promise<void> {
    await this.#disableSupervisors();
    for (const one of this.#lasting.reverse()) await one.end().catch(() => undefined);
    this.#lasting = [];
  }

  async #disableSupervisors(): Promise<void> {
    await Promise.all(this.#supervisors.map((one) => one.close()));
    this.#isAnew ||= this.#supervisors.some(({ restarts }) => restarts > 0);
    this.#supervisors = [];
  }

  /** Starts both agents once more: what they find in their journals when all is over must not touch the guest. */
  async #startAgain({ from, to }: Attempt): Promise<void> {
    const on = this.#on;
    await Promise.all([on.killAgent(from, "source"), on.killAgent(to, "destination")]);
    await Promise.all([on.restartAgent(from, "source"), on.restartAgent(to, "destination")]);
    const { at, violations } = await inspect(on, this.#excused);
    this.violations.push(...violations.map((one) => `after a restart of the agents ${one}`));
    if (at !== to) this.violations.push("after a restart of the agents no guest runs where it was");
  }

  get #excused(): { mayBeDoubled: boolean; isRolledBack: boolean } {
    const isAnew = this.#isAnew || this.#supervisors.some(({ restarts }) => restarts > 0);
    return { mayBeDoubled: this.#doubts.hasDoubled, isRolledBack: this.#doubts.isRolledBack || isAnew };
  }

  /** Leads the migration to the moment, by another fault at an earlier moment where the moment needs that. */
  async #reach(attempt: Attempt, moment: Moment): Promise<void> {
    const behind = moment.kind === "held" ? moment.behind : undefined;
    if (behind !== undefined) {
      await this.#reach(attempt, behind.at);
      await this.#commit(attempt, behind.fault, moment.kind === "held" ? [moment] : []);
      attempt.goOn(behind.at);
    }
    await attempt.reach(moment);
  }

  /**
   * Commits a fault. A part of it that is over at once is taken back at once.
   * @param holds where agents hold that start again at once
   */
  async #commit(attempt: Attempt, fault: Fault, holds: readonly Hold[] = []): Promise<void> {
    this.#noteCopies(attempt);
    const committed = await inject(this.#on, fault, attempt.from);
    this.#noteCopies(attempt);
    for (const one of committed) {
      const isOver = secondsOf(one.fault) === 0 && !(one.fault.kind === "host" && !one.fault.returns);
      if (isOver) await one.end(holds);
      else this.#lasting.push(one);
    }
  }

  /** Notes whether a whole copy of the guest is left, in a QEMU that lives. */
  #noteCopies(attempt: Attempt): void {
    const on = this.#on;
    const { strategy } = this.#cell;
    this.#wasLoaded ||= attempt.isLoaded(strategy !== undefined && isPostcopy(strategy));
    // a source that has heard that the guest runs at the destination ends its own copy, which is older
    const atSource = on.qemusOn(attempt.from).length > 0 && !attempt.isReleased();
    const atDestination = this.#wasLoaded && !attempt.isTakenBack() && on.qemusOn(attempt.to).length > 0;
    this.#copyWasLeft = atSource || atDestination;
  }

  /** Injects the fault and takes it back when its time has come. @returns how the migration ended */
  async #strike(attempt: Attempt): Promise<string> {
    const { fault, moment } = this.#cell;
    const on = this.#on;
    if (fault.kind === "words") return await this.#strikeWithWords(attempt, fault.words);
    this.#missed = moment.kind === "after" && this.#isAbsent(attempt, fault);
    if (!this.#missed) await this.#commit(attempt, fault);
    // no agent sees any more what a supervisor starts after the end of a migration
    if (this.#cell.supervisor === "blind") await Promise.all(this.#supervisors.map((one) => one.decided()));
    await on.rig.network.setRate(FULL_RATE);
    attempt.goOn(moment);
    await this.#mend(({ fault: one }) => (secondsOf(one) ?? 0) > 0, Math.max(0, ...this.#lasting.map(lastsFor)));
    return await this.#followed(attempt);
  }

  /**
   * Follows the migration to its end. The operator waits for what mends itself, but not for a link that is down for
   * good. @returns how the migration ended
   */
  async #followed(attempt: Attempt): Promise<string> {
    // a guest that needs pages of a host that is gone waits for ever: its operator ends it
    if (this.#cell.strands === true && this.#cell.fault.kind === "host")
      return await attempt.settle({ timeoutMs: STRANDS_WITHIN_MS, doubtIsEnd: false }).catch(() => "unknown");
    const isCut = this.#lasting.some(({ fault }) => fault.kind === "cut");
    let status = await attempt.settle({ timeoutMs: ENDS_WITHIN_MS, doubtIsEnd: true });
    const needsWord = (): boolean => status === "inDoubt" || status === "doubled";
    if (needsWord() && isCut) status = await this.#doubts.operate(attempt, status);
    await this.#mend(({ fault }) => fault.kind === "cut" || fault.kind === "reverse");
    if (isCut || !needsWord()) return needsWord() ? await this.#doubts.endDoubt(attempt, status) : status;
    status = await attempt.settle({ timeoutMs: ENDS_WITHIN_MS, doubtIsEnd: true });
    return needsWord() ? await this.#doubts.endDoubt(attempt, status) : status;
  }

  async #strikeWithWords(attempt: Attempt, words: Extract<Fault, { kind: "words" }>["words"]): Promise<string> {
    this.#noteCopies(attempt);
    attempt.goOn(this.#cell.moment);
    await attempt.settle({ timeoutMs: ENDS_WITHIN_MS, doubtIsEnd: true });
    this.violations.push(...(await sayWords(this.#on, attempt, words)));
    this.#doubts.isResolved = true;
    return await this.#followed(attempt);
  }

  /** True when a victim of the fault is not there. */
  #isAbsent(attempt: Attempt, fault: Fault): boolean {
    return partsOf(fault).some((part) => {
      const victim = victimOf(part);
      if (victim !== undefined) return this.#on.victimPid(victim, attempt.from) === undefined;
      const host = "side" in part ? hostOf(this.#on, part.side, attempt.from) : attempt.to;
      if (part.kind === "keeper") return this.#on.keepersOn(host).length === 0;
      return part.kind === "outsider" && !this.#on.watch.hears(host);
    });
  }

  /** Takes back the lasting faults that fit, after so many seconds. */
  async #mend(fits: (one: Committed) => boolean, seconds = 0): Promise<void> {
    const ending = this.#lasting.filter(fits);
    if (ending.length === 0) return;
    if (seconds > 0) await passed(seconds);
    this.#lasting = this.#lasting.filter((one) => !ending.includes(one));
    for (const one of ending.reverse()) await one.end();
  }

  /**
   * Takes back the faults that were for good: a host comes back at last, a disk has room again. That must not change
   * where the guest is.
   */
  async #mendAll(attempt: Attempt): Promise<void> {
    await this.#mend(() => true);
    const status = await attempt.settle({ timeoutMs: ENDS_WITHIN_MS, doubtIsEnd: true });
    if (status === "inDoubt" || status === "doubled") await this.#doubts.endDoubt(attempt, status);
    const { at, violations } = await inspect(this.#on, this.#excused);
    this.violations.push(...violations.map((one) => `when all was mended ${one}`));
    if (at !== undefined && at !== this.#on.at)
      this.violations.push("when all was mended the guest ran on the other host");
  }

  async #conclude(attempt: Attempt, statusThen: string): Promise<void> {
    const on = this.#on;
    let status = statusThen;
    const { mustMove, mayDouble } = this.#cell;
    await Promise.all(this.#supervisors.map((one) => one.decided()));
    if (mayDouble !== undefined && mayDouble !== false) status = (await this.#doubts.seeDoubled(attempt)) ?? status;
    const parts = partsOf(this.#cell.fault);
    if (parts.some((part) => part.kind === "outsider" && part.command === "stop")) await this.#doubts.goOn();
    if (this.#cell.strands === true) await this.#doubts.endStranded(attempt);
    else await this.#doubts.seeLastCopy(attempt);
    for (const host of [attempt.from, attempt.to])
      if (on.qemusOn(host).length === 0 && this.#hasKilled(host, attempt)) await on.tidyAfterKilledQemu(host);
    const { at, violations } = await inspect(on, this.#excused);
    this.violations.push(...violations);
    if (mayDouble === "must" && !this.#doubts.hasDoubled)
      this.violations.push("two copies were to be shown, and were not");
    if (at === undefined) return this.#concludeLost(status);
    const moved = at === attempt.to;
    const end = moved ? "moved" : "kept";
    this.outcome = this.#missed ? "missed" : this.#doubts.isResolved ? `resolved, ${end}` : end;
    on.at = at;
    if (mustMove === true && !moved) this.violations.push("the guest was to move, and was kept");
    if (status !== "unknown" && (status === "moved") !== moved)
      this.violations.push(`the migration says ${status}, and the guest runs on ${at.name}`);
  }

  /** True when the fault itself has ended the QEMU on a host. No agent tidies up after that QEMU then. */
  #hasKilled(host: RigHost, { from }: Attempt): boolean {
    const { fault, moment } = this.#cell;
    const behind = moment.kind === "held" && moment.behind !== undefined ? partsOf(moment.behind.fault) : [];
    return [...partsOf(fault), ...behind].some((part) => {
      const victim = victimOf(part);
      if (part.kind === "kill" && victim?.endsWith("QEMU") === true)
        return host === hostOf(this.#on, victim === "source QEMU" ? "source" : "destination", from);
      const ends = part.kind === "host" || (part.kind === "outsider" && ENDS_QEMU.includes(part.command));
      return ends && host === hostOf(this.#on, part.side, from);
    });
  }

  #concludeLost(status: string): void {
    const { mayLose } = this.#cell;
    this.outcome = this.#on.rig.qemus().length === 0 ? "lost" : "broken";
    const isExcused = typeof mayLose === "boolean" ? mayLose : !this.#copyWasLeft;
    if (isExcused) return;
    const left = this.#copyWasLeft ? "although a whole copy was left" : "and no whole copy was left";
    this.violations.push(`no guest runs, ${left}: ${this.outcome}, the migration says ${status}`);
  }
}

const endsAgent = (fault: Fault): boolean =>
  fault.kind === "host" || (fault.kind === "kill" && fault.victim.endsWith("agent"));

/** How long a fault lasts that is taken back by itself, seconds; 0 for a fault that is for good. */
const lastsFor = ({ fault }: Committed): number => secondsOf(fault) ?? 0;

/** Waits for the time of a fault that lasts. It does not wait for something to happen. */
const passed = (seconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, seconds * 1e3));
