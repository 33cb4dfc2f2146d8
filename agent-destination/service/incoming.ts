/**
 * One migration that comes to this host: its context, its driver, and what the agent tells the source and operators
 * about it. The order of its states is not decided here (migration/destination-migration.ts).
 */
import type { MigrationFault } from "../../shared/fault.ts";
import type { ResumingDestination } from "../../shared/link/resume/resuming-destination.ts";
import { type Standing, standingOf } from "../../shared/protocol/destination-states.ts";
import type { MigrationView } from "../../shared/protocol/report.ts";
import type { Running, SettleCall } from "../../shared/protocol/stream-messages.ts";
import { AskedWord } from "../../shared/runtime/asked-word.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";
import { processUsage } from "../../shared/runtime/host/process-usage.ts";
import type { DestinationContext } from "../migration/destination-context.ts";
import { runDestinationMigration } from "../migration/destination-migration.ts";
import type { DestinationState } from "../migration/destination-state.ts";
import { incomingView } from "./incoming-view.ts";
import { stillToTake } from "./promised-memory.ts";
import type { DestinationAgentParts } from "./recovery.ts";

/** What identifies a migration, its guest and its source, as the handshake or the journal says it. */
export type Named = Pick<
  DestinationContext,
  "id" | "guest" | "token" | "source" | "caller" | "neededBytes" | "saysKept" | "sequence" | "startedAtMs"
>;

/** What all migrations share of their agent; DestinationContext describes the fields. */
export interface OfAgent {
  readonly stopping: AbortSignal;
  readonly leaving: AbortSignal;
  readonly promisedBytes: () => Promise<number>;
}

/** The standings in which nothing is decided yet. */
const UNDECIDED: readonly Standing[] = ["waiting", "starting"];

/** A migration that is under way, from the handshake or the journal until it has ended or is left to the next agent. */
export class Incoming {
  readonly cx: DestinationContext;
  /** Resolves when the migration is over, or left to the next agent. Never rejects. */
  readonly ended: Promise<void>;
  /**
   * What the source is told of the guest; undefined until the guest was seen running here, or paused as it was granted.
   */
  running: Running | undefined;
  state: DestinationState;
  // the controllers of the signals cx.cancelled, cx.withdrawn and cx.unneeded
  private readonly cancelling = new AbortController();
  private readonly withdrawing = new AbortController();
  private readonly dropping = new AbortController();
  /** Resolved with the next change, and then replaced by a new one. */
  private changed: Deferred<void> = deferred();
  /** One callback for each changedWithin() that waits for a change. */
  private readonly waiting = new Set<() => void>();
  private isOver = false;
  /**
   * When the source last made a call that counts (DestinationAgent.settle), monotonic milliseconds. A handshake counts;
   * for a migration from the journal this is minus infinity until the first call.
   */
  private heardAtMs: number;
  /** What the phases report to operators beside the state; empty when they report nothing. */
  private news = "";
  /**
   * When the QEMU of an adopted migration first failed to answer this agent, monotonic milliseconds; undefined where no
   * look has failed.
   */
  private unseenSinceMs: number | undefined;
  /** The stream of a guest that is being started or runs here; in post-copy the missing pages come by it. */
  private stream: ResumingDestination | undefined;

  constructor(parts: DestinationAgentParts, of: Named, ofAgent: OfAgent, from: DestinationState) {
    const { stopping } = ofAgent;
    const { log, onBusy, ...shared } = parts;
    onBusy?.();
    this.state = from;
    this.heardAtMs = from.kind === "adopting" ? Number.NEGATIVE_INFINITY : parts.clock.monotonicMs();
    this.cx = {
      ...shared,
      ...of,
      log: log.child({ migration: of.id, guest: of.guest }),
      answer: deferred(),
      cancelled: AbortSignal.any([this.cancelling.signal, stopping]),
      withdrawn: this.withdrawing.signal,
      unneeded: this.dropping.signal,
      ...ofAgent,
      granted: deferred(),
      claims: new AskedWord(),
      onRunning: (running) => {
        this.running = running;
        this.change();
      },
      onStream: (stream) => {
        this.stream = stream;
      },
      onNews: (news) => {
        this.news = news;
        if (this.state.kind === "adopting") this.unseenSinceMs ??= parts.clock.monotonicMs();
      },
      cpuSecondsBefore: processUsage().cpuSeconds,
    };
    this.ended = runDestinationMigration(this.cx, from, (state) => {
      // a state that is only tried again keeps its news
      if (state.kind !== this.state.kind) this.news = "";
      this.state = state;
      this.change();
    });
    void this.ended.then(() => {
      this.isOver = true;
      this.change();
    });
  }

  /**
   * Acts on the source's `withdraw`: the guest stays at the source. An older source, which never says `kept`, needs no
   * copy here from then on.
   */
  withdraw(fault: MigrationFault): void {
    this.cancelling.abort(fault);
    this.withdrawing.abort(fault);
    if (!this.cx.saysKept) this.dropping.abort(fault);
  }

  /**
   * Ends the migration because the source needs no copy here: it has said `kept`, or has begun another migration of the
   * guest.
   */
  drop(fault: MigrationFault): void {
    this.withdraw(fault);
    this.dropping.abort(fault);
  }

  /** Ends the migration if it does not have the whole guest yet. */
  cancel(fault: MigrationFault): void {
    this.cancelling.abort(fault);
  }

  /** Notes that the source has called just now. */
  heard(): void {
    this.heardAtMs = this.cx.clock.monotonicMs();
  }

  /** True when the guest runs here in post-copy, or is about to, and needs its source for missing pages. */
  get pulls(): boolean {
    const { state } = this;
    return (state.kind === "pulling" || state.kind === "starting") && state.postcopy !== undefined;
  }

  /**
   * Gives the standing of the migration, as its source is told it.
   * @param ask what the source said with its question
   */
  standing(ask: SettleCall["ask"]): Standing {
    if (this.state.kind === "adopting") return this.state.record.kind === "running" ? "starting" : "waiting";
    const standing = this.pulls ? "pulling" : standingOf(this.state.kind, ask, true);
    return this.running !== undefined && standing === "starting" ? "running" : standing;
  }

  /**
   * Resolves when the standing is neither `waiting` nor `starting` any more, when the migration is over or left to the
   * next agent, or after `ms` milliseconds.
   */
  async decided(ask: SettleCall["ask"], ms: number): Promise<void> {
    const { clock } = this.cx;
    const deadline = clock.monotonicMs() + ms;
    // a migration that is left to the next agent may stay undecided, so its end ends the wait as well
    while (UNDECIDED.includes(this.standing(ask)) && !this.isOver) {
      const leftMs = deadline - clock.monotonicMs();
      if (leftMs <= 0) return;
      await this.changedWithin(leftMs);
    }
  }

  /**
   * Resolves with the next change, at the end of the migration, or after `ms` milliseconds. A source in doubt may ask
   * for days, and a promise keeps everything that waits for it until it settles. So this does not wait for `changed`,
   * but for a callback that is removed when the wait is over.
   */
  private changedWithin(ms: number): Promise<void> {
    const { clock } = this.cx;
    return new Promise((resolve) => {
      const done = (): void => {
        clock.cancel(timer);
        this.waiting.delete(done);
        resolve();
      };
      const timer = clock.after(ms, done);
      this.waiting.add(done);
    });
  }

  /** Resolves with the next change: the next state, the guest seen running, or the end. */
  get nextChange(): Promise<void> {
    return this.changed.promise;
  }

  /**
   * True while the source is in contact: the stream is up, or the source has made a call within the last
   * SILENT_AFTER_MS. In post-copy the source also counts as being in contact while its stream has been cut for less
   * than SILENT_AFTER_MS.
   */
  get sourceIsThere(): boolean {
    const { clock } = this.cx;
    const { receiver } = { receiver: undefined, ...this.state };
    const stream = this.stream ?? receiver?.channel;
    if (stream?.isCut === false && !stream.isOver) return true;
    // in post-copy a short cut is no silence: the guest only waits for its pages
    if (this.pulls && stream?.hasMet === true && !stream.isOver && stream.downForMs < SILENT_AFTER_MS) return true;
    return clock.monotonicMs() - this.heardAtMs < SILENT_AFTER_MS;
  }

  /**
   * True when the QEMU of an adopted migration has not answered this agent for SILENT_AFTER_MS. The source cannot
   * settle such a migration, because it is told that nothing is decided yet.
   */
  get isUnseen(): boolean {
    const { state, unseenSinceMs } = this;
    if (state.kind !== "adopting" || unseenSinceMs === undefined) return false;
    return this.cx.clock.monotonicMs() - unseenSinceMs >= SILENT_AFTER_MS;
  }

  /** Tells how much memory of this host the guest is still to take, bytes. */
  stillToTake(): Promise<number> {
    return stillToTake(this.state, this.cx.neededBytes);
  }

  /** The migration as operators see it. */
  get view(): MigrationView {
    const { cx, sourceIsThere, isUnseen, news } = this;
    return incomingView(this.state, { cx, here: cx.config.listen[0] ?? "", sourceIsThere, isUnseen, news });
  }

  /**
   * Tells whether the source must have given this migration up if it begins another one of the guest. A source has at
   * most one migration of a guest. This migration counts as given up where it is refused, or where no grant has come
   * and its stream is cut or missing. Only the caller that offered this migration can give it up.
   * @param source the address in the caller's new offer
   */
  isGivenUpBy(caller: string, source: string): boolean {
    const { state, cx } = this;
    if (caller !== cx.caller || source !== cx.source) return false;
    switch (state.kind) {
      case "discarding":
      case "refusing":
      case "withheld":
        return true;
      case "receiving":
      case "loading":
        return state.receiver.channel.isCut;
      case "loaded":
        return state.receiver === undefined || state.receiver.channel.isCut;
      default:
        return false;
    }
  }

  /** Tells everything that waits for a change. */
  private change(): void {
    const { changed } = this;
    this.changed = deferred();
    changed.resolve();
    for (const done of [...this.waiting]) done();
  }
}

/**
 * A source that has neither a stream nor made a call for this time counts as silent, milliseconds; a source in doubt
 * calls every few seconds. A QEMU that has not answered for as long may be ended by an operator's word.
 */
const SILENT_AFTER_MS = 10_000;
