/** One migration that comes to this host: its context, its driver, and what is known of it for whoever asks. */
import type { MigrationFault } from "../../shared/fault.ts";
import type { ResumingDestination } from "../../shared/link/resume/resuming-destination.ts";
import { type Standing, standingOf } from "../../shared/protocol/destination-states.ts";
import type { Running, SettleCall } from "../../shared/protocol/messages.ts";
import type { MigrationView } from "../../shared/protocol/report.ts";
import { AskedWord } from "../../shared/runtime/asked-word.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";
import { processUsage } from "../../shared/runtime/host/process-usage.ts";
import type { DestinationContext } from "../migration/destination-context.ts";
import { runDestinationMigration } from "../migration/destination-migration.ts";
import type { DestinationState } from "../migration/destination-state.ts";
import { incomingView } from "./incoming-view.ts";
import { stillToTake } from "./promised-memory.ts";
import type { DestinationAgentParts } from "./recovery.ts";

/** What identifies a migration, and what its records keep of its source. */
export type Named = Pick<
  DestinationContext,
  "id" | "guest" | "token" | "source" | "caller" | "neededBytes" | "saysKept" | "sequence" | "startedAtMs"
>;

/** What a migration has of the agent as a whole. */
export interface OfAgent {
  readonly stopping: AbortSignal;
  readonly leaving: AbortSignal;
  readonly promisedBytes: () => Promise<number>;
}

/** Standings in which nothing is decided yet. */
const UNDECIDED: readonly Standing[] = ["waiting", "starting"];

export class Incoming {
  readonly cx: DestinationContext;
  /** Resolves when it is over, or left to the next agent. */
  readonly ended: Promise<void>;
  running: Running | undefined;
  state: DestinationState;
  private readonly cancelling = new AbortController();
  private readonly withdrawing = new AbortController();
  private readonly dropping = new AbortController();
  private changed: Deferred<void> = deferred();
  /** Calls that wait for a change. */
  private readonly waiting = new Set<() => void>();
  private isOver = false;
  private heardAtMs: number;
  private news = "";
  /**
   * When the QEMU did not answer for the first time since this agent started, monotonic milliseconds. Undefined where
   * it has answered, or was not asked.
   */
  private unseenSinceMs: number | undefined;
  /** In post-copy, by which the guest's missing pages come. */
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
      // a state that is tried again has what it said of itself
      if (state.kind !== this.state.kind) this.news = "";
      this.state = state;
      this.change();
    });
    void this.ended.then(() => {
      this.isOver = true;
      this.change();
    });
  }

  /** The source says `withdraw`: the guest stays there. */
  withdraw(fault: MigrationFault): void {
    this.cancelling.abort(fault);
    this.withdrawing.abort(fault);
    if (!this.cx.saysKept) this.dropping.abort(fault);
  }

  /** The source says `kept`, or has begun another migration of the guest: it needs no copy here. */
  drop(fault: MigrationFault): void {
    this.withdraw(fault);
    this.dropping.abort(fault);
  }

  /** Ends the migration if it does not have the whole guest yet. */
  cancel(fault: MigrationFault): void {
    this.cancelling.abort(fault);
  }

  /** Notes that the source has asked just now. */
  heard(): void {
    this.heardAtMs = this.cx.clock.monotonicMs();
  }

  /** True when the guest runs here in post-copy, or is about to, and needs its source for missing pages. */
  get pulls(): boolean {
    const { state } = this;
    return (state.kind === "pulling" || state.kind === "starting") && state.postcopy !== undefined;
  }

  /** How the migration stands, as the source is told. */
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
    const deadline = performance.now() + ms;
    // left to the next agent, it may stay undecided
    while (UNDECIDED.includes(this.standing(ask)) && !this.isOver) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) return;
      await this.changedWithin(leftMs);
    }
  }

  /**
   * Resolves with the next change, at the end, or after `ms` milliseconds; nothing of a wait that is over stays. A
   * source in doubt asks for days, and a promise keeps whoever has waited for it until it settles.
   */
  private changedWithin(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.waiting.delete(done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.waiting.add(done);
    });
  }

  /** Resolves with the next state. */
  get nextChange(): Promise<void> {
    return this.changed.promise;
  }

  /** True when the stream is up, or the source has asked by a call within the last SILENT_AFTER_MS. */
  get sourceIsThere(): boolean {
    const { clock } = this.cx;
    const { receiver } = { receiver: undefined, ...this.state };
    const stream = this.stream ?? receiver?.channel;
    if (stream?.isCut === false && !stream.isOver) return true;
    // a cut is no silence yet: the guest only waits for its pages
    if (this.pulls && stream?.hasMet === true && !stream.isOver && stream.downForMs < SILENT_AFTER_MS) return true;
    return clock.monotonicMs() - this.heardAtMs < SILENT_AFTER_MS;
  }

  /**
   * True when the QEMU of the record has not answered this agent for SILENT_AFTER_MS. The source cannot settle such a
   * migration, since it is told that nothing is decided yet.
   */
  get isUnseen(): boolean {
    const { state, unseenSinceMs } = this;
    if (state.kind !== "adopting" || unseenSinceMs === undefined) return false;
    return this.cx.clock.monotonicMs() - unseenSinceMs >= SILENT_AFTER_MS;
  }

  /** Memory that the guest is still to take here, bytes. */
  stillToTake(): Promise<number> {
    return stillToTake(this.state, this.cx.neededBytes);
  }

  get view(): MigrationView {
    const { cx, sourceIsThere, isUnseen, news } = this;
    return incomingView(this.state, { cx, here: cx.config.listen[0] ?? "", sourceIsThere, isUnseen, news });
  }

  /**
   * True when the source must have given this migration up if it begins another one: a source has at most one migration
   * of a guest. Only the caller that has offered this migration can give it up.
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

  private change(): void {
    const { changed } = this;
    this.changed = deferred();
    changed.resolve();
    for (const done of [...this.waiting]) done();
  }
}

/**
 * A source that has not asked for this time counts as silent, milliseconds; a source in doubt asks every few seconds.
 * An operator may end a QEMU that has not answered for as long.
 */
const SILENT_AFTER_MS = 10_000;
