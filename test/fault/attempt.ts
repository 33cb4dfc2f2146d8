/** One `ferry migrate` of the guest: it is begun, led to the moment of a fault, and followed to its end. */
import type { Strategy } from "../../shared/protocol/messages.ts";
import { isFinal, type MigrationView } from "../../shared/protocol/report.ts";
import { isPostcopy } from "../../shared/protocol/strategies.ts";
import { ferry } from "../support/agents.ts";
import { bounded, eventually } from "../support/bounded.ts";
import type { RigProcess } from "../support/process.ts";
import type { RigHost } from "../support/rig.ts";
import { type FaultRig, FULL_RATE } from "./fault-rig.ts";
import type { AgentKind, Moment } from "./faults.ts";

const REACHED_WITHIN_MS = 60_000;
/** Rates of the link, bits per second, at which the moment lasts until the fault was injected. */
const FIRST_PASS_RATE = 100e6;
const LATER_PASSES_RATE = 40e6;
const LAST_PAGES_RATE = 20e6;
const SAID_WITHIN_MS = 45_000;
/**
 * An agent that answers so many times in a row that it does not know the migration has forgotten it: the agent ended
 * before the migration was in its journal.
 */
const UNKNOWN_ANSWERS = 3;

const copying = (progress: string): RegExp => new RegExp(`^\\{[^\\n]*"status":"copying"[^\\n]*${progress}`, "m");
/**
 * Progress within the first pass. Stop-and-copy makes its first pass with the guest stopped, so `switching` counts too.
 */
const IN_FIRST_PASS = /^\{[^\n]*"status":"(copying|switching)"[^\n]*"firstPassFraction":0\.[1-9]/m;
const NEAR_ITS_END = copying('"firstPassFraction":(0\\.[89]|1)');
const IN_LATER_PASSES = copying('"passes":([2-9]|\\d\\d)');

function rateOf(moment: Moment | undefined): number {
  if (moment?.kind === "first pass") return FIRST_PASS_RATE;
  if (moment?.kind === "last pages") return LAST_PAGES_RATE;
  if (moment?.kind === "later passes") return 2 * FIRST_PASS_RATE;
  if (moment?.kind === "held") return rateOf(moment.cancelledAt);
  return moment?.kind === "after" ? moment.bitsPerSecond : FULL_RATE;
}

/**
 * Thrown when a migration has ended before the moment of its fault. That may happen: a hybrid migration completes as
 * precopy does when QEMU has nothing left as post-copy is about to begin.
 */
export class MomentMissed extends Error {}

export interface Word {
  readonly code: number | null;
  readonly output: string;
  /** What was said, and to which agent. */
  readonly words: string;
}

export class Attempt {
  readonly from: RigHost;
  readonly to: RigHost;
  readonly startedUs = Date.now() * 1000;
  readonly run: RigProcess;
  readonly #on: FaultRig;

  /**
   * Begins a migration, by precopy if no strategy is given. The moment decides how fast the link is, and whether deltas
   * are left out, since with deltas the migration might end before the moment comes.
   */
  static async start(on: FaultRig, moment?: Moment, strategy?: Strategy): Promise<Attempt> {
    const [from, to] = [on.at, on.rig.other(on.at)];
    // with deltas hybrid would go on as precopy to the end
    const options = moment?.kind === "later passes" || strategy === "hybrid" ? ["--no-delta"] : [];
    options.push("--strategy", strategy ?? "precopy");
    const pulls = strategy !== undefined && isPostcopy(strategy);
    const bitsPerSecond = pulls && moment?.kind !== "last pages" ? FIRST_PASS_RATE : rateOf(moment);
    await on.rig.network.setRate(bitsPerSecond);
    // over the loopback the agent itself has to be slow, and stays so for the whole migration
    if (on.rig.network.kind === "loopback" && bitsPerSecond < FULL_RATE)
      options.push("--bandwidth", `${bitsPerSecond / 1e6}Mbit`);
    const command = ["--json", "migrate", on.name, "--to", on.agents(to).destinationAddress, ...options];
    const run = await ferry(on.rig, on.agents(from), command);
    on.casts(run);
    return new Attempt(on, from, run);
  }

  private constructor(on: FaultRig, from: RigHost, run: RigProcess) {
    this.#on = on;
    this.from = from;
    this.to = on.rig.other(from);
    this.run = run;
  }

  /** The id of the migration; undefined until the agent has begun it. */
  get id(): string | undefined {
    return /^\{"id":"(\w+)"/m.exec(this.run.output())?.[1];
  }

  /**
   * Waits for the moment. @throws MomentMissed when the migration ends first, and Error when the moment does not come
   */
  async reach(moment: Moment): Promise<void> {
    const within = { timeoutMs: REACHED_WITHIN_MS };
    switch (moment.kind) {
      case "held": {
        if (moment.cancelledAt !== undefined) await this.#cancel(moment.cancelledAt);
        const held = this.#agent(moment.side).waitForOutput(new RegExp(`"held":"${moment.state}"`), within);
        const ended = this.run.ended.then(() => {
          throw new MomentMissed(`It ended before it came to ${moment.state}: ${this.run.output().slice(-500)}`);
        });
        ended.catch(() => undefined);
        // where the source was cancelled, or is in doubt, `ferry` may have ended before the destination comes so far
        await (moment.cancelledAt === undefined && moment.behind === undefined ? Promise.race([held, ended]) : held);
        return;
      }
      case "first pass":
        await this.run.waitForOutput(IN_FIRST_PASS, within);
        return;
      case "later passes":
        await this.run.waitForOutput(NEAR_ITS_END, within);
        await this.#on.rig.network.setRate(LATER_PASSES_RATE);
        await this.run.waitForOutput(IN_LATER_PASSES, within);
        return;
      case "last pages": {
        const written = async (): Promise<true | undefined> =>
          (await this.#on.watch.hasWrittenAll(this.from)) || undefined;
        await eventually(written, { ...within, what: "the source QEMU's last page" });
        return;
      }
      case "after":
        await Promise.race([new Promise((resolve) => setTimeout(resolve, moment.ms)), this.run.ended]);
    }
  }

  /** Lets the agent go on that is held at the moment, if there is one. */
  goOn(moment: Moment): void {
    if (moment.kind !== "held") return;
    const agent = this.#agent(moment.side);
    if (agent.output().includes(`"held":"${moment.state}"`)) agent.signal("SIGUSR2");
  }

  async #cancel(moment: Moment): Promise<void> {
    await this.reach(moment);
    await this.#on.cancel(this.from, this.id ?? "");
    this.goOn(moment);
  }

  #agent(side: AgentKind): RigProcess {
    return this.#on.agent(side === "source" ? this.from : this.to, side);
  }

  /**
   * True when the destination QEMU has the whole guest, as far as its agent has said. In post-copy that is when the
   * last page is there.
   */
  isLoaded(isPostcopy: boolean): boolean {
    return this.#hasSaid("destination", isPostcopy ? "arrived" : "loaded|owning|starting|pulling|arrived|withheld");
  }

  /** True when the source agent has heard that the guest runs at the destination, so that it ends its own copy. */
  isReleased(): boolean {
    return this.#hasSaid("source", "releasing|released");
  }

  /** True when the source has its guest again, so that the copy at the destination is older. */
  isTakenBack(): boolean {
    return this.#hasSaid("source", "kept|withdrawing");
  }

  #hasSaid(kind: AgentKind, states: string): boolean {
    const { id } = this;
    const said = new RegExp(`"(state|held)":"(${states})"`);
    const log = this.#agent(kind).output();
    return log.split("\n").some((line) => id !== undefined && line.includes(id) && said.test(line));
  }

  /**
   * What an agent says of the migration. @returns "unknown" when the agent knows no such migration, undefined when it
   * does not answer
   */
  async view(kind: AgentKind = this.#told): Promise<MigrationView | "unknown" | undefined> {
    const { id } = this;
    const views = await this.#on.migrations(kind === "source" ? this.from : this.to, kind);
    if (views === undefined) return undefined;
    if (id === undefined) return this.run.running ? undefined : "unknown";
    return views.find((view) => view.id === id) ?? "unknown";
  }

  /** The agent whose view counts: the source agent, as long as its host is up. */
  get #told(): AgentKind {
    return this.#on.isDown(this.from) ? "destination" : "source";
  }

  /**
   * Waits until the migration has ended or is forgotten, or with `doubtIsEnd` until it needs a person.
   * @returns the status of the migration, or "unknown"
   * @throws Error after `timeoutMs`
   */
  async settle({ timeoutMs, doubtIsEnd }: { timeoutMs: number; doubtIsEnd: boolean }): Promise<string> {
    let unknown = 0;
    let last: string | undefined;
    const ask = async (): Promise<string | undefined> => {
      const view = await this.view();
      last = typeof view === "object" ? view.status : view;
      unknown = view === "unknown" ? unknown + 1 : 0;
      if (unknown >= UNKNOWN_ANSWERS) return "unknown";
      if (view === undefined || view === "unknown") return undefined;
      const { status } = view;
      return isFinal(status) || (doubtIsEnd && (status === "inDoubt" || status === "doubled")) ? status : undefined;
    };
    return await eventually(ask, { timeoutMs, everyMs: 50, what: "the end of the migration" }).catch(() => {
      throw new Error(`The migration did not end within ${timeoutMs} ms: it is ${last}`);
    });
  }

  /**
   * Waits until the migration needs no person any more, though it may still be under way. @returns false after
   * `timeoutMs`
   */
  async leavesDoubt(timeoutMs: number): Promise<boolean> {
    const isOut = async (): Promise<true | undefined> => {
      const view = await this.view();
      return typeof view === "object" && view.status !== "inDoubt" && view.status !== "doubled" ? true : undefined;
    };
    return await eventually(isOut, { timeoutMs, everyMs: 50, what: "the end of the doubt" }).catch(() => false);
  }

  /** Says an operator's word at the agent of either host. @returns how `ferry` ended and what it wrote */
  async resolve(at: AgentKind, keep: AgentKind, options: readonly string[] = ["--yes"]): Promise<Word> {
    const host = at === "source" ? this.from : this.to;
    return await this.say(host, at, ["resolve", this.id ?? "", "--keep", keep, ...options]);
  }

  /** Runs a command of `ferry` on a host, for one agent of that host. */
  async say(host: RigHost, kind: AgentKind, words: readonly string[]): Promise<Word> {
    const agents = this.#on.agents(host);
    const asked = kind === "source" ? agents : { ...agents, sourceAddress: agents.destinationAddress };
    const run = await ferry(this.#on.rig, asked, ["--json", ...words]);
    this.#on.casts(run);
    const { code } = await bounded(run.ended, SAID_WITHIN_MS, `the end of ferry ${words.join(" ")}`);
    return { code, output: run.output(), words: `${words.join(" ")} at the ${kind} agent of ${host.name}` };
  }
}
