/**
 * What an operator has to do with a cell: ends doubts and second copies as the documents say, and runs what is left.
 */
import { eventually } from "../support/bounded.ts";
import type { Attempt } from "./attempt.ts";
import type { Cell } from "./cell.ts";
import type { FaultRig } from "./fault-rig.ts";
import { hostsWhereItRuns } from "./inspect.ts";
import { Operator } from "./operator.ts";
import { checkShout, whoShouts } from "./two-copies.ts";

/** With both hosts there, doubt ends by itself. */
const DOUBT_MS = 12_000;
/** After which the agents must have come to an end by themselves; the limits of both profiles are far below. */
export const ENDS_WITHIN_MS = 90_000;
/** Until an agent has started what it was about to start. */
const STARTS_WITHIN_MS = 5000;

export class Doubts {
  /** An operator has said a word. */
  isResolved = false;
  /** The guest has lived some moments twice, one after the other. */
  isRolledBack = false;
  hasDoubled = false;
  readonly #on: FaultRig;
  readonly #cell: Cell;
  readonly #violations: string[];

  readonly #disable: () => Promise<void>;

  /** @param disable keeps whatever has started a second copy from starting it again */
  constructor(on: FaultRig, cell: Cell, violations: string[], disable: () => Promise<void>) {
    this.#disable = disable;
    this.#on = on;
    this.#cell = cell;
    this.#violations = violations;
  }

  /** It ends by itself, now that the fault is gone; or by the operator's word, where that may be needed. */
  async endDoubt(attempt: Attempt, status: string): Promise<string> {
    const { mayDoubt } = this.#cell;
    if (status === "doubled") return await this.operate(attempt, status);
    if (await attempt.leavesDoubt(mayDoubt ? DOUBT_MS / 4 : DOUBT_MS)) {
      // in post-copy its last pages are still to come
      const end = await attempt.settle({ timeoutMs: ENDS_WITHIN_MS, doubtIsEnd: true });
      if (end !== "inDoubt" && end !== "doubled") return end;
    }
    if (!mayDoubt) this.#violations.push("it stayed in doubt though the destination could be asked");
    return await this.operate(attempt, status);
  }

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

  /** A whole copy that an agent keeps for its operator is run by its operator. */
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

  /** What is left there waits for pages that nobody has, until its operator ends it by a word. */
  async endStranded(attempt: Attempt): Promise<void> {
    const operator = new Operator(this.#on, attempt, this.#disable);
    const violation = await operator.endWhatMissesPages();
    if (violation !== undefined) this.#violations.push(violation);
    const view = await attempt.view();
    const code = view === undefined || view === "unknown" ? view : view.error?.code;
    // a destination that had not started the guest yet gives it up by itself
    if (operator.operated.words.length > 0 && code !== "pages-lost" && this.#cell.fault.kind !== "host")
      this.#violations.push(`pages were lost, and the migration says ${code}`);
    this.isResolved ||= operator.operated.words.length > 0;
  }

  /** Whoever has paused the guest lets it go on. No agent has done so. */
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
   * Where two copies run by somebody else's act, an agent shows them, and the documented way out ends one.
   * @returns how the migration stands behind that
   */
  async seeDoubled(attempt: Attempt): Promise<string | undefined> {
    if (!this.#on.watch.areTwoNow()) return undefined;
    const who = await whoShouts(this.#on, attempt);
    return who === undefined ? undefined : await this.operate(attempt, "doubled");
  }
}
