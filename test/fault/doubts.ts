/**
 * Does what an operator has to do in a cell: ends doubts and second copies as the documents say, and runs the copy that
 * is left.
 */
import { eventually } from "../support/bounded.ts";
import type { Attempt } from "./attempt.ts";
import type { Cell } from "./cell.ts";
import type { FaultRig } from "./fault-rig.ts";
import { hostsWhereItRuns } from "./inspect.ts";
import { Operator } from "./operator.ts";
import { checkShout, whoShouts } from "./two-copies.ts";

/** How long a doubt may last while both hosts are up, milliseconds: it ends by itself then. */
const DOUBT_MS = 12_000;
/**
 * Within this time the agents must have ended a migration by themselves, milliseconds. The limits of `short` and
 * `patient` (cell.ts) are far below it.
 */
export const ENDS_WITHIN_MS = 90_000;
/** How long an agent may take to start what it is about to start, milliseconds. */
const STARTS_WITHIN_MS = 5000;

export class Doubts {
  /** True once an operator has said a word. */
  isResolved = false;
  /**
   * True once the guest has gone back to an older copy: it has then lived some moments twice, one time after the other.
   */
  isRolledBack = false;
  /** True once an agent has shown two copies. */
  hasDoubled = false;
  readonly #on: FaultRig;
  readonly #cell: Cell;
  readonly #violations: string[];

  readonly #disable: () => Promise<void>;

  /** @param disable stops the supervisors, so that none starts a second copy again */
  constructor(on: FaultRig, cell: Cell, violations: string[], disable: () => Promise<void>) {
    this.#disable = disable;
    this.#on = on;
    this.#cell = cell;
    this.#violations = violations;
  }

  /**
   * Ends a doubt after the fault is gone. The doubt ends by itself, or by the operator's word where that may be needed.
   * @returns the status of the migration
   */
  async endDoubt(attempt: Attempt, status: string): Promise<string> {
    const { mayDoubt } = this.#cell;
    if (status === "doubled") return await this.operate(attempt, status);
    if (await attempt.leavesDoubt(mayDoubt ? DOUBT_MS / 4 : DOUBT_MS)) {
      // in post-copy the guest's last pages are still to come
      const end = await attempt.settle({ timeoutMs: ENDS_WITHIN_MS, doubtIsEnd: true });
      if (end !== "inDoubt" && end !== "doubled") return end;
    }
    if (!mayDoubt) this.#violations.push("it stayed in doubt though the destination could be asked");
    return await this.operate(attempt, status);
  }

  /** Acts as the operator until the migration needs no person any more. @returns the status of the migration */
  async operate(attempt: Attempt, status: string): Promise<string> {
    if (status === "doubled") await this.#noteDoubled(attempt);
    const operator = new Operator(this.#on, attempt, this.#disable);
    try {
      return await operator.settle();
    } finally {
      const { isRolledBack, words, hasSeenTwo } = operator.operated;
      if (hasSeenTwo && !this.hasDoubled) await this.#noteDoubled(attempt);
      this.isResolved ||= words.length > 0;
      this.isRolledBack ||= isRolledBack;
    }
  }

  async #noteDoubled(attempt: Attempt): Promise<void> {
    this.hasDoubled = true;
    const who = await whoShouts(this.#on, attempt);
    if (who !== undefined) this.#violations.push(...(await checkShout(attempt, who)));
    const { mayDouble } = this.#cell;
    if (mayDouble === undefined || mayDouble === false) this.#violations.push("an agent says that two copies run");
  }

  /** Runs a whole copy that an agent keeps for its operator, where no guest runs by itself. */
  async seeLastCopy(attempt: Attempt): Promise<void> {
    const on = this.#on;
    const runs = async (): Promise<true | undefined> =>
      (await hostsWhereItRuns(on)).length > 0 || on.rig.qemus().length === 0 ? true : undefined;
    const sees = await eventually(runs, { timeoutMs: STARTS_WITHIN_MS, what: "the guest" }).catch(() => undefined);
    if (sees !== undefined) return;
    const operator = new Operator(on, attempt, this.#disable);
    await operator.runWhatIsLeft();
    this.isResolved = true;
    this.isRolledBack ||= operator.operated.isRolledBack;
  }

  /** Ends the guest at the destination by an operator's word, where it waits for pages that no host has. */
  async endStranded(attempt: Attempt): Promise<void> {
    const operator = new Operator(this.#on, attempt, this.#disable);
    const violation = await operator.endWhatMissesPages();
    if (violation !== undefined) this.#violations.push(violation);
    const view = await attempt.view();
    const code = view === undefined || view === "unknown" ? view : view.error?.code;
    // a destination that had not started the guest yet gives the guest up by itself
    if (operator.operated.words.length > 0 && code !== "pages-lost" && this.#cell.fault.kind !== "host")
      this.#violations.push(`pages were lost, and the migration says ${code}`);
    this.isResolved ||= operator.operated.words.length > 0;
  }

  /** Lets the guest go on, as the operator who has paused it. No agent may have done so. */
  async goOn(): Promise<void> {
    const on = this.#on;
    const hosts = [on.rig.a, on.rig.b];
    const statuses = await Promise.all(hosts.map((host) => on.watch.status(host)));
    if (statuses.includes("running")) this.#violations.push("the guest was paused by its operator, and runs");
    const paused = hosts.filter((_, index) => statuses[index] === "paused" || statuses[index] === "postmigrate");
    if (paused.length !== 1) this.#violations.push(`the guest was paused, and its QEMUs are ${statuses.join(" and ")}`);
    for (const host of paused.slice(0, 1)) await on.watch.say(host, "cont");
  }

  /**
   * Ends one of two copies that run by somebody else's act, in the documented way, once an agent has shown them.
   * @returns the status of the migration afterwards; undefined when no two copies run
   */
  async seeDoubled(attempt: Attempt): Promise<string | undefined> {
    if (!this.#on.watch.areTwoNow()) return undefined;
    const who = await whoShouts(this.#on, attempt);
    return who === undefined ? undefined : await this.operate(attempt, "doubled");
  }
}
