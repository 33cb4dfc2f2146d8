/**
 * Plays the operator of docs/operations.md ("In doubt", "Two copies"): looks at both hosts, and says the word that the
 * table there has for what is seen, at the agent that the table names. What no agent can check is said with `--yes`.
 */
import { eventually } from "../support/bounded.ts";
import type { RigHost } from "../support/rig.ts";
import type { Attempt, Word } from "./attempt.ts";
import type { FaultRig } from "./fault-rig.ts";
import { hostsWhereItRuns } from "./inspect.ts";
import { killAll } from "./processes.ts";

const ROUNDS = 4;
/** How long an agent has to act, milliseconds. While it is about to act it is not told what to do. */
const SETTLES_MS = 12_000;
/** How long a destination may take to ask for a word, milliseconds. It counts its source as silent after 10 s. */
const SILENT_WITHIN_MS = 45_000;
const TWO_COPIES_EXIT = 5;
/** The statuses of a destination whose copy waits for a decision. */
const WAITING: readonly string[] = ["inDoubt", "granting"];

export interface Operated {
  /** The words that were said, and what came of each. */
  readonly words: readonly Word[];
  /** True when the copy of the switchover goes on, although the other copy has run since. */
  readonly isRolledBack: boolean;
  /** True when an agent has shown that two copies run. */
  readonly hasSeenTwo: boolean;
}

/** What an operator sees who goes to both hosts. */
interface Seen {
  readonly runsAt: readonly RigHost[];
  readonly atSource: string | undefined;
  readonly atDestination: string | undefined;
  readonly hasSourceQemu: boolean;
  readonly hasDestinationQemu: boolean;
}

export class Operator {
  readonly #on: FaultRig;
  readonly #attempt: Attempt;
  readonly #disable: () => Promise<void>;
  readonly #words: Word[] = [];
  #isRolledBack = false;
  #hasSeenTwo = false;

  /** @param disable stops the supervisors, so that none starts a second copy again */
  constructor(on: FaultRig, attempt: Attempt, disable: () => Promise<void>) {
    this.#disable = disable;
    this.#on = on;
    this.#attempt = attempt;
  }

  get operated(): Operated {
    return { words: this.#words, isRolledBack: this.#isRolledBack, hasSeenTwo: this.#hasSeenTwo };
  }

  /**
   * Says words until the migration needs no person any more.
   * @returns its status
   * @throws Error when the words of the documents do not end the migration
   */
  async settle(): Promise<string> {
    for (let round = 0; round < ROUNDS; round++) {
      await this.#say(await this.#look());
      const status = await this.#attempt.settle({ timeoutMs: SETTLES_MS, doubtIsEnd: false }).catch(() => undefined);
      if (status !== undefined) return status;
    }
    throw new Error(`No word of the documents ends it: ${this.#told()}`);
  }

  /**
   * Runs the copy that the destination agent still holds, where no guest runs. @throws Error when the guest does not
   * run then
   */
  async runWhatIsLeft(): Promise<void> {
    const seen = await this.#look();
    if (seen.runsAt.length > 0 || !WAITING.includes(seen.atDestination ?? "")) return;
    this.#isRolledBack = true;
    const word = await this.#attempt.resolve("destination", "destination");
    this.#words.push(word);
    const runs = async (): Promise<true | undefined> =>
      (await hostsWhereItRuns(this.#on)).length > 0 ? true : undefined;
    await eventually(runs, { timeoutMs: SETTLES_MS, what: `the guest to run by the operator's word: ${this.#told()}` });
  }

  /**
   * Ends a guest at the destination that misses pages which no host has. The word at the destination ends what is left
   * of the guest, and another word there says which host the guest belongs to. A source that is up may come first, by
   * withdrawing a guest that was not started yet.
   * @returns what is wrong, in words; undefined when nothing is
   */
  async endWhatMissesPages(): Promise<string | undefined> {
    const isSilent = async (): Promise<true | undefined> => {
      const { atDestination, hasDestinationQemu } = await this.#look();
      return atDestination === "inDoubt" || !hasDestinationQemu ? true : undefined;
    };
    const what = "the destination to wait for its operator, or its QEMU to end";
    if ((await eventually(isSilent, { timeoutMs: SILENT_WITHIN_MS, what }).catch(() => undefined)) === undefined)
      return `a guest that misses pages stays at the destination, and no word is asked for: ${(await this.#look()).atDestination}`;
    if ((await this.#look()).hasDestinationQemu) await this.#tell("destination", "source");
    if ((await this.#look()).hasDestinationQemu) return `the word did not end the guest: ${this.#told()}`;
    await this.closeAtDestination();
    return undefined;
  }

  /** Tells a destination that has lost its guest that the guest belongs to the source from now on. */
  async closeAtDestination(): Promise<void> {
    const { atDestination, hasDestinationQemu } = await this.#look();
    if (atDestination !== "inDoubt" || hasDestinationQemu) return;
    this.#words.push(await this.#attempt.resolve("destination", "source"));
  }

  async #look(): Promise<Seen> {
    const { from, to } = this.#attempt;
    const [atSource, atDestination] = await Promise.all(
      (["source", "destination"] as const).map(async (kind) => {
        const view = await this.#attempt.view(kind).catch(() => undefined);
        return typeof view === "object" ? view.status : view;
      }),
    );
    return {
      runsAt: await hostsWhereItRuns(this.#on),
      atSource,
      atDestination,
      hasSourceQemu: this.#on.qemusOn(from).length > 0,
      hasDestinationQemu: this.#on.qemusOn(to).length > 0,
    };
  }

  async #say(seen: Seen): Promise<void> {
    const { to } = this.#attempt;
    const { runsAt, atSource, atDestination, hasSourceQemu, hasDestinationQemu } = seen;
    if (atSource === "doubled" || atDestination === "doubled") return await this.#endOneOfTwo(seen);
    const copyWaits = hasDestinationQemu && !runsAt.includes(to) && WAITING.includes(atDestination ?? "");
    // the source's host is off for good, or its QEMU has ended before the guest was granted
    if (atSource === undefined || (atSource === "inDoubt" && !hasSourceQemu)) {
      // a copy that was withheld or withdrawn is older than what the source has run since
      this.#isRolledBack ||= copyWaits;
      if (copyWaits) return await this.#tell("destination", "destination");
      if (atSource === undefined) return;
    }
    if (atSource !== "inDoubt") return;
    // over a link that does not come back, post-copy's pages cannot come: the copy of the switchover goes on
    if (runsAt.includes(to) && atDestination === "inDoubt") await this.#tell("destination", "source");
    else if (runsAt.includes(to)) return await this.#tell("source", "destination");
    // the copy at the destination ends first, so that it never runs
    if (copyWaits) await this.#tell("destination", "source");
    if (this.#on.watch.hasRun(to, this.#attempt.startedUs)) this.#isRolledBack = true;
    await this.#tell("source", "source");
  }

  /** Stops the copy that was started later, which has done less, and ends it. */
  async #endOneOfTwo({ runsAt, atSource }: Seen): Promise<void> {
    this.#hasSeenTwo = true;
    const { from, to } = this.#attempt;
    const ranFirst = this.#on.watch.firstToRun();
    const doomed = ranFirst === to ? from : to;
    if (runsAt.includes(doomed)) await this.#on.watch.say(doomed, "stop");
    await this.#disable();
    if (doomed === from && atSource === "doubled") {
      await this.#tell("source", "destination");
      // an agent ends only the QEMU of its migration, so a QEMU that a supervisor has started is ended by hand
      if (this.#words.at(-1)?.code !== TWO_COPIES_EXIT) return;
    }
    await killAll(this.#on.qemusOn(doomed));
    await this.#on.tidyAfterKilledQemu(doomed);
  }

  async #tell(at: "source" | "destination", keep: "source" | "destination"): Promise<void> {
    this.#words.push(await this.#attempt.resolve(at, keep));
  }

  #told(): string {
    return this.#words
      .map(({ words, code, output }) => `${words} ended with ${code}: ${output.slice(-300)}`)
      .join("; ");
  }
}
