/**
 * Follows a migration to its end. The stream of its progress may break, or the operator may leave: the migration goes
 * on in both cases.
 *
 * Invariant: the end of a migration is reported only after a view has shown it.
 */
import { MigrationFault } from "../shared/fault.ts";
import { isFinal, type MigrationView } from "../shared/protocol/report.ts";
import type { OperatorClient } from "./operator-client.ts";
import type { ProgressDisplay } from "./progress-display.ts";

export interface FollowParts {
  readonly client: OperatorClient;
  readonly display: ProgressDisplay;
  /** Calls `handler` at every Ctrl-C, until the returned function is called. */
  readonly onInterrupt: (handler: () => void) => () => void;
  /** Resolves after `ms` milliseconds, or as soon as `signal` is aborted. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  /**
   * True when the first Ctrl-C cancels the migration, and the second one stops following it. Otherwise the first one
   * stops following it already. A migration that is not followed any more goes on.
   */
  readonly interruptCancels: boolean;
}

type Observer = (view: MigrationView) => void;
type Start = (observer: Observer, signal: AbortSignal) => Promise<void>;

/** The last view that was seen. `detached` is true when the operator left before the end. */
export interface Followed {
  readonly view: MigrationView | undefined;
  readonly detached: boolean;
}

/** How long to wait before an agent that was lost is asked again, milliseconds. */
const RETRY_MS = 1000;
/** How many times in a row an agent that was lost is asked again. */
const RETRIES = 30;
/**
 * How long a doubt is watched, milliseconds. A doubt often ends by itself when the link comes back; after this time a
 * person has to end it.
 */
const DOUBT_MS = 10_000;

/**
 * Follows a migration.
 * @param start begins or watches the migration, and hands on its views
 * @throws MigrationFault `in-doubt` when the agent was lost and the end is unknown; else what the agent reports
 */
export async function follow(start: Start, parts: FollowParts): Promise<Followed> {
  const following = new Following(parts);
  const release = parts.onInterrupt(() => following.interrupt());
  try {
    await following.run(start);
  } finally {
    release();
    parts.display.end();
  }
  return { view: following.view, detached: following.detached };
}

class Following {
  view: MigrationView | undefined;
  detached = false;
  private readonly parts: FollowParts;
  private readonly leave = new AbortController();
  private interrupts = 0;
  private cancelAsked = false;
  private doubt: AbortController | undefined;

  constructor(parts: FollowParts) {
    this.parts = parts;
  }

  async run(start: Start): Promise<void> {
    const { client } = this.parts;
    let next = start;
    for (let failures = 0; ; failures++) {
      const before = this.view;
      const lost = await this.once(next);
      if (lost === undefined) return;
      if (this.view === undefined) throw lost;
      if (this.view !== before) failures = 0;
      if (failures >= RETRIES) throw this.unknownEnd(this.view, lost);
      if (failures === 0)
        this.parts.display.note(`${lost.message}; the migration goes on, and ferry asks the agent for it again`);
      await this.parts.sleep(RETRY_MS, this.leave.signal);
      if (this.leave.signal.aborted) return;
      const { id } = this.view;
      next = (observer, signal) => client.watch(id, observer, signal);
    }
  }

  /**
   * Follows one stream.
   * @returns why the stream broke before the migration ended; undefined when the migration has ended, or is not to be
   *   followed any more
   */
  private async once(start: Start): Promise<MigrationFault | undefined> {
    try {
      await start((view) => this.observe(view), this.leave.signal);
      if (this.hasEnded() || this.leave.signal.aborted) return undefined;
      return new MigrationFault("peer-lost", "The agent ended the stream before the migration ended");
    } catch (thrown) {
      if (this.hasEnded() || this.leave.signal.aborted) return undefined;
      const fault = MigrationFault.from(thrown, "peer-lost");
      const isLoss = fault.code === "peer-lost" || fault.code === "peer-unreachable" || fault.code === "timeout";
      if (isLoss || fault.code === "stopping") return fault;
      // the agent was started again and does not know the migration any more: it may have handed the guest over before
      throw this.view !== undefined && fault.code === "migration-unknown" ? this.unknownEnd(this.view, fault) : fault;
    } finally {
      this.settled();
    }
  }

  private hasEnded(): boolean {
    return this.view !== undefined && isFinal(this.view.status);
  }

  private observe(view: MigrationView): void {
    this.view = view;
    this.parts.display.show(view);
    if (this.cancelAsked) this.cancel();
    if (view.status === "inDoubt") this.doubted();
    else this.settled();
    // every moment damages the guest's disks: the operator is told at once, and the agent goes on without being
    // followed
    if (view.status === "doubled") this.leave.abort();
  }

  private doubted(): void {
    if (this.doubt !== undefined) return;
    const doubt = new AbortController();
    this.doubt = doubt;
    void this.parts.sleep(DOUBT_MS, doubt.signal).then(() => {
      if (!doubt.signal.aborted) this.leave.abort();
    });
  }

  private settled(): void {
    this.doubt?.abort();
    this.doubt = undefined;
  }

  interrupt(): void {
    this.interrupts += 1;
    if (this.parts.interruptCancels && this.interrupts === 1) {
      this.parts.display.note("Cancelling; press Ctrl-C again to leave the migration to itself");
      this.cancelAsked = true;
      if (this.view !== undefined) this.cancel();
      return;
    }
    this.detached = true;
    this.leave.abort();
  }

  /** Asks the agent to cancel the migration. The stream that is followed shows what comes of it. */
  private cancel(): void {
    this.cancelAsked = false;
    const id = this.view?.id;
    if (id === undefined) return;
    this.parts.client.cancel(id).catch((thrown: unknown) => {
      this.parts.display.note(`The migration cannot be cancelled: ${MigrationFault.from(thrown).message}`);
    });
  }

  private unknownEnd(view: MigrationView, lost: MigrationFault): MigrationFault {
    return new MigrationFault("in-doubt", `Lost the agent while it migrated ${view.guest}: ${lost.message}`, {
      cause: lost,
      guestNow:
        "the guest runs at the source, unless the handover was already under way; this cannot be seen from here",
      advice: `See that the agent runs, then: ferry watch ${view.id}`,
    });
  }
}
