/**
 * The service of the destination agent. It answers the handshakes and the settlement calls of sources, and runs one
 * migration (Incoming) for each handshake that passes the first look, at most one for a guest. At its start it takes up
 * the migrations of its journal. How a migration goes through its states is not decided here (migration/).
 */
import { timingSafeEqual } from "node:crypto";
import { MigrationFault, type Refusal } from "../../shared/fault.ts";
import { limitsToward } from "../../shared/link/callers/guest-peers.ts";
import type { Caller, DestinationService } from "../../shared/link/link.ts";
import { standingOf } from "../../shared/protocol/destination-states.ts";
import { neededBytes } from "../../shared/protocol/handshake.ts";
import type { Contract, HandshakeAnswer, Offer } from "../../shared/protocol/messages.ts";
import { type DestinationRecord, EPOCH, nextSequence } from "../../shared/protocol/ownership.ts";
import {
  DECIDES_WITHIN_MS,
  type Running,
  type SettleAnswer,
  type SettleCall,
  TAKES_UP_WITHIN_MS,
} from "../../shared/protocol/stream-messages.ts";
import { orLate } from "../../shared/runtime/deferred.ts";
import { hasEnded } from "../../shared/runtime/host/process-identity.ts";
import { RECORDS_SLACK } from "../../shared/runtime/journal/journal.ts";
import { orLogged } from "../../shared/runtime/journal/journal-log.ts";
import { keepLatest } from "../../shared/runtime/keep-latest.ts";
import { returnMemoryLater } from "../../shared/runtime/v8/return-memory.ts";
import { KeeperProcess } from "../guest/keeper-process.ts";
import { answerProbe } from "../link/probe-responder.ts";
import { tokenText } from "../migration/destination-context.ts";
import type { DestinationState } from "../migration/destination-state.ts";
import { definedBytes, firstLook } from "../migration/first-look.ts";
import { MonitorLooks } from "../migration/what-is-there.ts";
import { CallerLogs } from "./caller-logs.ts";
import { Incoming, type Named } from "./incoming.ts";
import { IncomingDesk } from "./incoming-desk.ts";
import { recordedState } from "./incoming-view.ts";
import { Places } from "./places.ts";
import { type DestinationAgentParts, isSettled, pruneJournal, readJournal } from "./recovery.ts";

/**
 * The parts that differ from caller to caller: a log with the caller's budget, and link limits by which only the caller
 * itself can be dialled as the source (limitsToward).
 */
type CallerParts = Pick<DestinationAgentParts, "log" | "limits">;

export class DestinationAgent implements DestinationService {
  /** The service for operators. */
  readonly desk: IncomingDesk;
  private readonly parts: DestinationAgentParts;
  private readonly callers: CallerLogs;
  /** Aborted when the agent begins to stop. */
  private readonly stopping = new AbortController();
  /** Aborted when the agent stops waiting for its migrations to end. */
  private readonly leaving = new AbortController();
  /** The migrations that are under way, by id. */
  private readonly entries = new Map<string, Incoming>();
  /**
   * What sources were told of guests that arrived since this agent started, by migration. The journal does not hold the
   * times and the resource usage in these answers.
   */
  private readonly arrivals = new Map<string, Running>();
  /** The largest `sequence` of the migrations in the journal; each new migration gets a larger one. */
  private sequence = 0;
  private readonly places: Places;
  private readonly looks: MonitorLooks;
  /** How many sources measure their link to this host now. */
  private linkAnswers = 0;
  /**
   * Tells whether no migration is under way. returnMemoryLater() keeps this function for a while. A closure made in
   * run() would keep the ended migration, and its memory, for as long, so the function is a field.
   */
  private readonly isIdle = (): boolean => this.entries.size === 0;

  constructor(parts: DestinationAgentParts) {
    this.parts = parts;
    this.callers = new CallerLogs(parts.log, parts.clock);
    this.desk = new IncomingDesk(parts.journal, this.entries, parts.clock);
    this.places = new Places(parts, this.entries);
    this.looks = new MonitorLooks(parts.clock);
  }

  async handshake(offer: Offer, caller: Caller): Promise<HandshakeAnswer> {
    const { migrationId: id, guest, token, sourceAddress: source } = { ...offer, guest: offer.guest.name };
    const callerLog = this.callers.for(caller.name);
    const log = callerLog.child({ migration: id, guest });
    log.info({ caller: caller.text }, "handshake");
    if ((await this.parts.journal.read(id)) !== undefined) throw wasHere(id);
    const parts = { ...this.parts, log: callerLog, limits: limitsToward(caller, this.parts.limits) };
    const promisedBytes = await this.places.promised(Number.POSITIVE_INFINITY, guest);
    const isExpected = this.places.entryOf(guest) !== undefined;
    const looking = { ...parts, looks: this.looks };
    const { definition, refusals } = await firstLook(offer, caller, looking, { promisedBytes, isExpected });
    const refused = (...all: readonly Refusal[]): HandshakeAnswer => {
      log.info({ refusals: all }, "the offer is refused");
      return { kind: "refusals", refusals: all };
    };
    if (definition === undefined) return refused(...refusals);
    const makesWay = !offer.dryRun && this.places.entryOf(guest)?.isGivenUpBy(caller.name, source) === true;
    if (!makesWay) refusals.push(...this.places.busyWith(guest));
    if (refusals.length > 0) return refused(...refusals);
    if (makesWay) await this.places.clear(guest);
    // another offer may have come during the waits above, so the same questions are asked again. After this look into
    // the journal nothing is awaited until run() has made the entry
    if ((await this.parts.journal.read(id)) !== undefined || this.entries.has(id)) throw wasHere(id);
    const busy = this.places.busyWith(guest);
    if (busy.length > 0) return refused(...busy);
    this.places.check(caller);
    const nowMs = this.parts.clock.nowUs() / 1000;
    this.sequence = nextSequence([{ sequence: this.sequence }], nowMs);
    const { saysKept } = offer;
    const named: Named = {
      ...{ id, guest, token, source, saysKept, caller: caller.name, sequence: this.sequence },
      startedAtMs: Math.floor(nowMs),
      neededBytes: offer.dryRun ? 0 : neededBytes(offer, definedBytes(definition)),
    };
    const { cx, ended } = this.run(named, { kind: "negotiating", offer, definition }, parts);
    const given = await cx.answer.promise;
    // a refusal is answered only when the migration has ended, so that nothing is in the way of the next try
    if (given.kind === "refusals" || offer.dryRun) await ended;
    return given.kind === "contract" && offer.dryRun && offer.measureLink
      ? this.measured(offer, given.contract, parts)
      : given;
  }

  /**
   * Answers a check whose offer was good, and lets the source measure the link to this host. While `migrations.max`
   * sources measure their links already, the contract offers no measurement.
   */
  private measured(offer: Offer, contract: Contract, { limits, log }: CallerParts): HandshakeAnswer {
    const { clock, config } = this.parts;
    if (this.linkAnswers >= config.migrationsMax) return { kind: "contract", contract };
    this.linkAnswers++;
    void answerProbe(offer, { limits, clock, log, leaving: this.leaving.signal }).then(() => {
      this.linkAnswers--;
    });
    return { kind: "contract", contract: { ...contract, measuresLink: true } };
  }

  async settle(call: SettleCall): Promise<SettleAnswer> {
    const { migrationId, token, epoch, ask, paused } = call;
    const entry = this.entries.get(migrationId);
    if (entry === undefined) return this.settled(call);
    if (!isSame(entry.cx.token, token) || epoch !== EPOCH) return UNKNOWN;
    // a source that was heard counts as being in contact, and an operator's word is then not taken. A source that only
    // asks how the migration stands is not counted as heard: its own QEMU has ended or cannot be seen, so it cannot
    // settle the migration, and the operator of this host has to. In post-copy such a source is counted as heard, since
    // it still has the missing pages
    if (ask !== "standing" || entry.pulls) entry.heard();
    const withdrawn = new MigrationFault("peer-failed", "The source withdrew the migration", { role: "source" });
    if (ask === "withdraw") entry.withdraw(withdrawn);
    if (ask === "kept") entry.drop(withdrawn);
    // a grant counts only for a guest that is loaded: before that, no source has been asked for one
    if (ask === "grant" && entry.state.kind === "loaded")
      entry.cx.granted.resolve({ token: tokenText(token), epoch, paused });
    // in post-copy the start of the guest may need pages of the source that makes this call, so the answer does not
    // wait for it
    if (ask !== "standing" && !entry.pulls) await entry.decided(ask, DECIDES_WITHIN_MS);
    // the migration has ended meanwhile, and its record in the journal says how
    if (!this.entries.has(migrationId)) return this.settled(call);
    const standing = entry.standing(ask);
    return answer(standing, entry.view.error?.message ?? "it is under way", entry.running);
  }

  /**
   * Takes up the migrations that an earlier life of this agent left in the journal. The program calls this before calls
   * are served. It waits until each migration that is not settled has been looked at once, or for TAKES_UP_WITHIN_MS.
   */
  async recover(): Promise<void> {
    const looks: Promise<unknown>[] = [];
    for (const { id, record } of await readJournal(this.parts)) {
      const { guest, source, sequence, startedAtMs, grant } = record;
      this.sequence = Math.max(this.sequence, sequence);
      const token = Buffer.from(grant.token, "hex");
      const { caller, postcopy } = record;
      const neededBytes = (postcopy?.blocks ?? []).reduce((sum, { byteLength }) => sum + byteLength, 0);
      const saysKept = record.saysKept === true;
      const named = { id, guest, source, caller, neededBytes, saysKept, sequence, startedAtMs, token };
      if (isSettled(record) && !(await isLeftOver(record))) this.desk.recall(named, recordedState(record), this.parts);
      else looks.push(this.run(named, { kind: "adopting", record }).nextChange);
    }
    await orLate(Promise.all(looks), TAKES_UP_WITHIN_MS, this.parts.clock);
  }

  /**
   * Ends what can be ended before the agent stops. A migration that does not have the whole guest is discarded. A guest
   * that was granted is still started. A whole copy that waits for its source stays, and the next agent finds it by the
   * journal. What is still under way 1 s before the end of `shutdown.grace` is left to the next agent.
   */
  async stop(): Promise<void> {
    const stopping = new MigrationFault("stopping", "The destination agent is being stopped");
    this.stopping.abort(stopping);
    const all = Promise.all([...this.entries.values()].map(({ ended }) => ended));
    const { clock, config } = this.parts;
    await orLate(all, config.shutdownGraceMs - 1000, clock);
    this.leaving.abort(stopping);
  }

  /**
   * Gives the parts of a migration from the journal. The lines of its log count for the address of its source. The
   * source may show any name of `tls.peers`, since a guest that runs must not lose its source over a renewed
   * certificate (docs/design/security.md#whom-an-agent-dials).
   */
  private partsFor(source: string): CallerParts {
    return { log: this.callers.for(source), limits: this.parts.limits };
  }

  /** Runs a migration from a state on, and keeps it in `entries` until it ends. */
  private run(named: Named, from: DestinationState, parts = this.partsFor(named.source)): Incoming {
    const promisedBytes = (): Promise<number> => this.places.promised(named.sequence, named.guest);
    const ofAgent = { stopping: this.stopping.signal, leaving: this.leaving.signal, promisedBytes };
    const entry = new Incoming({ ...this.parts, ...parts }, named, ofAgent, from);
    this.entries.set(named.id, entry);
    void entry.ended.finally(() => {
      if (entry.running !== undefined) this.arrived(named.id, entry.running);
      this.desk.remember(entry);
      this.entries.delete(named.id);
      // a failing disk needs no report here: the next record that is written reports it
      pruneJournal(this.parts.journal, RECORDS_SLACK).catch(() => undefined);
      returnMemoryLater(this.isIdle, KeeperProcess.prepare);
    });
    return entry;
  }

  /**
   * Settles a migration whose guest has ended here, and whose source has kept its own copy. The record then says
   * `refused`, so that `ferry may-start` no longer lets a supervisor of this host start the guest.
   */
  private async givenUp(id: string, record: DestinationRecord): Promise<SettleAnswer> {
    const reason = "its QEMU has ended here, and the source has kept the guest";
    try {
      await this.parts.journal.write(id, { ...record, kind: "refused", reason, heard: true });
    } catch (thrown) {
      this.parts.log.warn({ migration: id, fault: MigrationFault.from(thrown).message }, "the refusal was not written");
      // the refusal is not durable yet, and `waiting` makes the source ask again
      return answer("waiting", "the journal of the destination cannot be written", undefined);
    }
    return answer("refused", reason, undefined);
  }

  /**
   * Removes the note `ungranted` from the record of a guest that somebody other than an agent had started. The guest is
   * granted now, so a supervisor of this host may start it again.
   */
  private noteGranted(id: string, { ungranted: _, ...record }: DestinationRecord): Promise<void> {
    return orLogged(this.parts.journal.write(id, record), this.parts.log.child({ migration: id }));
  }

  /** Keeps what the source was told of a guest that has arrived. */
  private arrived(id: string, running: Running): void {
    this.arrivals.set(id, running);
    keepLatest(this.arrivals, ARRIVALS_KEPT);
  }

  /**
   * Answers for a migration that is not under way, from its record and from whether the QEMU of the record lives. A
   * migration without a record is `unknown`.
   */
  private async settled({ migrationId: id, token, ask }: SettleCall): Promise<SettleAnswer> {
    const record = await this.parts.journal.read(id);
    if (record === undefined || !isSame(Buffer.from(record.grant.token, "hex"), token)) return UNKNOWN;
    const lives =
      record.qemu === undefined
        ? false
        : await hasEnded(record.qemu).then(
            (ended) => !ended,
            () => undefined,
          );
    // while this host cannot tell whether the QEMU lives, nothing is proven, and `starting` makes the source ask again
    if (lives === undefined) return answer("starting", "this host does not tell whether its QEMU lives", undefined);
    if (ask === "kept" && !lives && record.kind !== "refused") return this.givenUp(id, record);
    if (ask === "grant" && lives && record.ungranted === true) await this.noteGranted(id, record);
    const running = this.arrivals.get(id);
    const started = this.desk.doubled(id);
    const state = started === undefined ? stateOf(record, lives, running !== undefined) : "doubled";
    return answer(standingOf(state, ask, lives && started !== false), REASONS[state], running);
  }
}

/** How many entries `arrivals` keeps; the oldest ones go first. */
const ARRIVALS_KEPT = 100;

const wasHere = (id: string): MigrationFault =>
  new MigrationFault("refused", `The destination already has a migration ${id}, and does not overwrite its record`);

/** True when the QEMU of a settled refusal (`refused`, `heard`) still lives, or when this host cannot tell. */
const isLeftOver = async ({ kind, qemu }: DestinationRecord): Promise<boolean> =>
  kind === "refused" && qemu !== undefined && !(await hasEnded(qemu).catch(() => false));

const UNKNOWN: SettleAnswer = {
  standing: "unknown",
  reason: "there is no record of it in this agent's stateDirectory",
};

type Settled = "withheld" | "starting" | "arrived" | "lost" | "discarded" | "doubled" | "adopting";

/**
 * Tells the state of a migration that is not under way, by what its record and its process prove.
 * @param lives whether the QEMU of the record lives
 * @param wasSeen whether this agent has seen the guest running
 */
function stateOf({ kind, heard }: DestinationRecord, lives: boolean, wasSeen: boolean): Settled {
  switch (kind) {
    case "arrived":
      return "arrived";
    case "refused":
      // a migration whose copy is kept is under way, unless this agent is leaving: the next agent takes it up
      return lives && heard !== true ? "withheld" : "discarded";
    case "waiting":
      return lives ? "adopting" : "discarded";
    case "running":
      if (wasSeen) return "arrived";
      return lives ? "starting" : "lost";
  }
}

/** The reason that a source is told with the standing. */
const REASONS: Readonly<Record<Settled, string>> = {
  starting: "its QEMU is there, and this agent cannot reach it; see its log",
  arrived: "the guest was seen running here; if its QEMU is not there any more, it has ended since or has moved on",
  lost: "the guest was started, and was not seen to run before its QEMU ended",
  discarded: "it was refused before the guest was started; see this agent's log",
  withheld: "it was refused before the guest was started, and a whole copy is kept here",
  doubled: "somebody has started the guest on this host, although its migration was refused",
  adopting: "it is being taken up from the journal",
};

const answer = (standing: SettleAnswer["standing"], reason: string, running: Running | undefined): SettleAnswer =>
  (standing === "running" || standing === "pulling") && running !== undefined
    ? { standing, reason, running }
    : { standing, reason };

const isSame = (known: Uint8Array, given: Uint8Array): boolean =>
  known.length === given.length && timingSafeEqual(known, given);
