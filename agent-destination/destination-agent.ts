/** The destination's service: one incoming migration for each accepted handshake, at most one for a guest. */
import { timingSafeEqual } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { MigrationFault } from "../shared/fault.ts";
import type { DestinationService } from "../shared/link/link.ts";
import { standingOf } from "../shared/protocol/destination-states.ts";
import { checkMigrations } from "../shared/protocol/handshake.ts";
import type {
  Contract,
  HandshakeAnswer,
  Offer,
  Running,
  SettleAnswer,
  SettleCall,
} from "../shared/protocol/messages.ts";
import type { DestinationRecord } from "../shared/protocol/ownership.ts";
import { type Deferred, deferred } from "../shared/runtime/deferred.ts";
import { identify } from "../shared/runtime/process-identity.ts";
import { processUsage } from "../shared/runtime/process-usage.ts";
import { returnMemoryLater } from "../shared/runtime/return-memory.ts";
import { type DestinationContext, EPOCH, tokenText } from "./destination-context.ts";
import { runDestinationMigration } from "./destination-migration.ts";
import type { DestinationState } from "./destination-state.ts";
import { KeeperProcess } from "./keeper-process.ts";
import { answerLink } from "./link-answers.ts";
import { type DestinationAgentParts, recoverIncoming } from "./recovery.ts";

/** A migration under way. */
interface Entry {
  readonly cx: DestinationContext;
  readonly cancel: AbortController;
  /** The driver's word; only read here. */
  state: DestinationState;
  running: Running | undefined;
  /** The guest runs, or it is all over: what a source that asks waits for. */
  readonly decided: Deferred<void>;
  ended: Promise<void>;
}

/** A source that asks is answered when it is decided, or with what is known after this. */
const DECIDES_WITHIN_MS = 5000;
/** A new migration of the same guest waits this long for the end of one that was given up. */
const CLEARS_WITHIN_MS = 15_000;

export class DestinationAgent implements DestinationService {
  private readonly parts: DestinationAgentParts;
  private readonly leaving = new AbortController();
  private readonly entries = new Map<string, Entry>();
  /** Answers of guests that arrived in this agent's life: more than the journal knows. */
  private readonly arrivals = new Map<string, Running>();
  /** Sources that measure their link to here. */
  private linkAnswers = 0;

  constructor(parts: DestinationAgentParts) {
    this.parts = parts;
  }

  async handshake(offer: Offer, caller: string): Promise<HandshakeAnswer> {
    const guest = offer.guest.name;
    this.parts.log.info({ migration: offer.migrationId, guest, caller }, "handshake");
    if ((await this.parts.journal.read(offer.migrationId)) !== undefined || this.entries.has(offer.migrationId))
      throw new MigrationFault(
        "refused",
        `Migration ${offer.migrationId} was here before: its record is not written over`,
      );
    // asked again: another offer may have come meanwhile
    const inTheWay = (await this.clear(guest)) ?? this.busyWith(guest);
    if (inTheWay !== undefined) return { kind: "refusals", refusals: [{ code: "guest-busy", message: inTheWay }] };
    checkMigrations("destination", this.entries.size, this.parts.config.migrationsMax);
    const cx = this.makeContext({ id: offer.migrationId, guest, token: offer.token });
    const ended = this.run(cx, { kind: "negotiating", offer });
    const given = await cx.answer.promise;
    // a refusal is given when nothing is in the way of the next try any more
    if (given.kind === "refusals" || offer.dryRun) await ended;
    return given.kind === "contract" && offer.dryRun && offer.measureLink
      ? this.measured(offer, given.contract)
      : given;
  }

  /** Behind a check: the source may measure the link. */
  private measured(offer: Offer, contract: Contract): HandshakeAnswer {
    const { limits, clock, log, config } = this.parts;
    if (this.linkAnswers >= config.migrationsMax) return { kind: "contract", contract };
    this.linkAnswers++;
    void answerLink(offer, { limits, clock, log, leaving: this.leaving.signal }).then(() => {
      this.linkAnswers--;
    });
    return { kind: "contract", contract: { ...contract, measuresLink: true } };
  }

  async settle({ migrationId, token, epoch, ask, paused }: SettleCall): Promise<SettleAnswer> {
    const entry = this.entries.get(migrationId);
    if (entry === undefined) return this.settled(migrationId, token);
    if (!isSame(entry.cx.token, token) || epoch !== EPOCH) return UNKNOWN;
    if (ask === "withdraw")
      entry.cancel.abort(new MigrationFault("peer-failed", "The source withdrew the migration", { role: "source" }));
    // before everything is loaded nobody was granted anything
    if (ask === "grant" && entry.state.kind === "loaded")
      entry.cx.granted.resolve({ token: tokenText(token), epoch, paused });
    // a guest that is being started may wait for pages of whoever asks
    if (ask !== "standing" && !pulls(entry.state))
      await Promise.race([entry.decided.promise, delay(DECIDES_WITHIN_MS, undefined, { ref: false })]);
    // what has ended is in the journal
    if (!this.entries.has(migrationId)) return this.settled(migrationId, token);
    const known = pulls(entry.state) ? "pulling" : standingOf(entry.state.kind);
    const standing = entry.running === undefined || known === "pulling" ? known : "running";
    return this.answer(standing, "it is under way", entry.running);
  }

  /** Takes up what an earlier life of this agent left; before anything is served. */
  async recover(): Promise<void> {
    const make = (of: { id: string; guest: string; token: Uint8Array }): DestinationContext => this.makeContext(of);
    for (const { cx, state } of await recoverIncoming(this.parts, make)) void this.run(cx, state);
  }

  /** Discards what was not granted; what was is started first, or left to the journal. */
  async stop(): Promise<void> {
    const stopping = new MigrationFault("stopping", "The destination agent is being stopped");
    for (const { cancel } of this.entries.values()) cancel.abort(stopping);
    const all = Promise.all([...this.entries.values()].map(({ ended }) => ended));
    await Promise.race([all, delay(Math.max(0, this.parts.config.shutdownGraceMs - 1000), undefined, { ref: false })]);
    this.leaving.abort(stopping);
  }

  private run(cx: DestinationContext, from: DestinationState): Promise<void> {
    const cancel = this.cancels.get(cx);
    if (cancel === undefined) throw new TypeError("a context of another agent");
    const entry: Entry = { cx, cancel, state: from, running: undefined, decided: deferred(), ended: Promise.resolve() };
    this.entries.set(cx.id, entry);
    entry.ended = runDestinationMigration(cx, from, (state) => {
      entry.state = state;
    }).finally(() => {
      this.entries.delete(cx.id);
      entry.decided.resolve();
      returnMemoryLater(
        () => this.entries.size === 0,
        () => KeeperProcess.prepare(),
      );
    });
    return entry.ended;
  }

  /** Each migration's own way to be cancelled. */
  private readonly cancels = new WeakMap<DestinationContext, AbortController>();

  private makeContext({ id, guest, token }: { id: string; guest: string; token: Uint8Array }): DestinationContext {
    const { log, onBusy, ...parts } = this.parts;
    onBusy?.();
    const cancel = new AbortController();
    const cx: DestinationContext = {
      ...parts,
      id,
      guest,
      token,
      log: log.child({ migration: id, guest }),
      answer: deferred(),
      cancelled: cancel.signal,
      leaving: this.leaving.signal,
      granted: deferred(),
      onRunning: (running) => {
        const entry = this.entries.get(id);
        if (entry !== undefined) {
          entry.running = running;
          entry.decided.resolve();
        }
        this.arrivals.set(id, running);
        for (const oldest of this.arrivals.keys()) if (this.arrivals.size > ARRIVALS_KEPT) this.arrivals.delete(oldest);
      },
      cpuSecondsBefore: processUsage().cpuSeconds,
    };
    this.cancels.set(cx, cancel);
    return cx;
  }

  /**
   * Makes way for a new migration of a guest. One whose link is down, or that is ending, was given up by its source,
   * which has at most one for a guest; it is refused for good first.
   * @returns what is in the way
   */
  private async clear(guest: string): Promise<string | undefined> {
    const entry = [...this.entries.values()].find(({ cx }) => cx.guest === guest);
    if (entry === undefined) return undefined;
    if (!isGivenUp(entry.state)) return this.busyWith(guest);
    entry.cancel.abort(new MigrationFault("peer-lost", "The source has begun another migration of this guest"));
    await Promise.race([entry.ended, delay(CLEARS_WITHIN_MS, undefined, { ref: false })]);
    return this.busyWith(guest);
  }

  private busyWith(guest: string): string | undefined {
    const id = [...this.entries.values()].find(({ cx }) => cx.guest === guest)?.cx.id;
    if (id === undefined) return undefined;
    return `Another migration of ${guest} to this destination is under way (${id}); wait for it or cancel it`;
  }

  /** Of a migration that is over, or that this agent never knew: its record. */
  private async settled(id: string, token: Uint8Array): Promise<SettleAnswer> {
    const record = await this.parts.journal.read(id);
    if (record === undefined || !isSame(Buffer.from(record.grant.token, "hex"), token)) return UNKNOWN;
    // its definition may have gone, so that it could not be taken up
    if (record.kind === "running" && (await identify(record.qemuPid)) === record.qemuProcess)
      return this.answer("starting", "its QEMU is there, and this agent cannot reach it; see its log", undefined);
    return this.answer(STANDINGS[record.kind], REASONS[record.kind], this.arrivals.get(id));
  }

  private answer(standing: SettleAnswer["standing"], reason: string, running: Running | undefined): SettleAnswer {
    return (standing === "running" || standing === "pulling") && running !== undefined
      ? { standing, reason, running }
      : { standing, reason };
  }
}

const ARRIVALS_KEPT = 100;

const UNKNOWN: SettleAnswer = {
  standing: "unknown",
  reason: "there is no record of it in this agent's stateDirectory",
};

/** Of a migration that is not under way: whoever started the guest and did not see it run has found its QEMU ended. */
const STANDINGS: Readonly<Record<DestinationRecord["kind"], SettleAnswer["standing"]>> = {
  waiting: "waiting",
  running: "lost",
  arrived: "running",
  refused: "refused",
};
const REASONS: Readonly<Record<DestinationRecord["kind"], string>> = {
  waiting: "it is being taken up from the journal",
  running: "the guest was started, and was not seen to run before its QEMU ended",
  arrived: "the guest was seen running here",
  refused: "it was refused before the guest was started; see this agent's log",
};

const isSame = (known: Uint8Array, given: Uint8Array): boolean =>
  known.length === given.length && timingSafeEqual(known, given);

/** The guest runs here, or is about to, and needs its source for the pages that are missing. */
const pulls = (state: DestinationState): boolean =>
  (state.kind === "pulling" || state.kind === "starting") && state.postcopy !== undefined;

function isGivenUp(state: DestinationState): boolean {
  switch (state.kind) {
    case "refusing":
    case "removing":
    case "discarding":
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
