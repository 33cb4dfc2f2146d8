/**
 * The service of a source agent. It answers operators, about the guests of this host and about the migrations of this
 * life of the agent and of earlier ones, and it takes the dial-ins of destinations. A guest has at most one migration
 * under way.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { defined } from "../../shared/defined.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { SourceChannel, SourceService } from "../../shared/link/link.ts";
import { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import { checkMigrations } from "../../shared/protocol/handshake.ts";
import { nextSequence } from "../../shared/protocol/ownership.ts";
import type { PlanCall, PlanView } from "../../shared/protocol/plan-view.ts";
import {
  type GuestView,
  type HeatMapBlock,
  isFinal,
  type MigrateCall,
  type MigrationView,
  type ResolveCall,
} from "../../shared/protocol/report.ts";
import type { Hello } from "../../shared/protocol/stream-messages.ts";
import { deferred, orLate } from "../../shared/runtime/deferred.ts";
import { loadGuest } from "../../shared/runtime/guest/guest-definition.ts";
import { processUsage } from "../../shared/runtime/host/process-usage.ts";
import { RECORDS_SLACK } from "../../shared/runtime/journal/journal.ts";
import { LineBudget } from "../../shared/runtime/log/line-budget.ts";
import { budgeted } from "../../shared/runtime/log/log.ts";
import { returnMemoryLater } from "../../shared/runtime/v8/return-memory.ts";
import { OwnQemu } from "../guest/own-qemu.ts";
import { RestartedStreams } from "../link/restarted-streams.ts";
import { OperatorWords } from "../migration/operator-words.ts";
import type { SourceContext } from "../migration/source-context.ts";
import { runSourceMigration } from "../migration/source-migration.ts";
import { isEnd, type SourceState } from "../migration/source-state.ts";
import { MadePlans } from "../planning/made-plans.ts";
import { Planner } from "../planning/planner.ts";
import { MigrationReport } from "../report/migration-report.ts";
import { AllowedDestinations } from "./allowed-destinations.ts";
import { Announcer } from "./announcer.ts";
import { listGuestViews } from "./guest-views.ts";
import { endsByItself, OutgoingDesk } from "./outgoing-desk.ts";
import { type Identity, type Made, pruneJournal, recoverMigrations, type SourceAgentParts } from "./recovery.ts";

/** The most log lines of one kind that a migration may write in a minute. A migration that goes well writes a few. */
const LINES_OF_A_KIND = 60;
/** The part of the shutdown grace that is kept for aborting migrations which did not finish, milliseconds. */
const ABORT_RESERVE_MS = 10_000;
/** The part of the shutdown grace in which migrations that are left to the journal close what is open, milliseconds. */
const LEAVE_MS = 1000;

export class SourceAgent implements SourceService {
  /** Where destinations dial this agent; set once the server listens. */
  advertised = "";
  private readonly parts: SourceAgentParts;
  private readonly leaving = new AbortController();
  private readonly desk: OutgoingDesk;
  /** Plans under way, whose guests are only looked at, by id. */
  private readonly plans = new Map<string, Made & { readonly ended: Promise<unknown> }>();
  private readonly plansMade = new MadePlans();
  private readonly planner = new Planner(this.plansMade);
  private readonly allowed: AllowedDestinations;
  /** The `sequence` of the latest migration of the journal. */
  private sequence = 0;

  /**
   * Tells whether no migration is under way. The function is made here, and not where it is passed on: a function that
   * is made there would keep the migration that has just ended, and its memory, from being freed.
   */
  private readonly isIdle = (): boolean => this.desk.entries.size === 0;

  constructor(parts: SourceAgentParts) {
    this.parts = parts;
    this.desk = new OutgoingDesk(parts.journal);
    this.allowed = new AllowedDestinations(parts.config.destinationsAllowed);
  }

  listGuests(): Promise<readonly GuestView[]> {
    return listGuestViews(this.parts.config, this.desk.busyGuests, this.parts.clock);
  }

  /** When the promise settles, everything that the plan has opened is closed, and the guest is as it was. */
  async plan(call: PlanCall): Promise<PlanView> {
    this.leaving.signal.throwIfAborted();
    const { guest, to } = call.migration;
    this.checkWay(to);
    this.checkFree(guest);
    const made = this.makeContext(call.migration, this.newIdentity());
    const ended = this.planner.plan(call, made.cx);
    this.plans.set(made.cx.id, { ...made, ended: ended.catch(() => undefined) });
    try {
      return await ended;
    } finally {
      this.plans.delete(made.cx.id);
      if (call.observeMs > 0) returnMemoryLater(this.isIdle);
    }
  }

  async migrate(asked: MigrateCall): Promise<string> {
    this.leaving.signal.throwIfAborted();
    this.checkWay(asked.to);
    // this wait comes first: a wait between checkFree() and the entry in the desk would let two calls at once pass the
    // check
    await loadGuest(asked.guest, this.parts.config);
    this.checkFree(asked.guest);
    const { config, clock } = this.parts;
    const { call, because } = this.plansMade.applied(this.filled(asked), config, clock.monotonicMs());
    const made = this.makeContext(call, this.newIdentity(), because);
    this.run(made, { kind: "planned" });
    return made.cx.id;
  }

  /**
   * Checks that this destination may be named, and that a destination can dial in.
   * @throws MigrationFault `not-authorised`; `configuration` where no destination could dial in
   */
  private checkWay(to: string): void {
    this.allowed.check(to);
    if (this.parts.config.advertise === "")
      throw new MigrationFault("configuration", "This source agent has no address that a destination can dial", {
        guestNow: "the guest runs here, and nothing was touched",
        advice:
          "Set listen of ferry-source, and TLS or a unix socket; docs/operations.md says how, then start it again",
      });
  }

  /**
   * Checks that the guest has no migration or plan under way, and that the agent may have one more.
   * @throws MigrationFault `guest-busy`, or `agent-busy`
   */
  private checkFree(guest: string): void {
    const busy = this.desk.busyGuests;
    const id = busy.get(guest);
    if (id !== undefined)
      throw new MigrationFault("guest-busy", `${guest} has migration ${id} under way`, {
        advice: `Watch it with: ferry watch ${id}`,
      });
    for (const { cx } of this.plans.values())
      if (cx.call.guest === guest)
        throw new MigrationFault("guest-busy", `${guest} is being looked at for a plan`, {
          advice: "Ask again when that has ended; it takes some seconds",
        });
    checkMigrations("source", busy.size + this.plans.size, this.parts.config.migrationsMax);
  }

  /** Takes up the migrations that an earlier life of this agent left under way. Call before anything is served. */
  async recover(): Promise<void> {
    for (const { made, state, endedAtMs } of await recoverMigrations(this.parts, (call, identity) =>
      this.makeContext(call, identity),
    )) {
      this.sequence = Math.max(this.sequence, made.cx.sequence);
      if (isEnd(state)) this.desk.recall(made.cx, state, endedAtMs);
      else this.run(made, state);
    }
  }

  getMigration(id: string): MigrationView {
    return this.desk.getMigration(id);
  }

  listMigrations(): readonly MigrationView[] {
    return this.desk.listMigrations();
  }

  watch(id: string, observer: (view: MigrationView) => void): () => void {
    return this.desk.watch(id, observer);
  }

  cancel(id: string): Promise<MigrationView> {
    return this.desk.cancel(id);
  }

  resolve(call: ResolveCall): Promise<MigrationView> {
    return this.desk.resolve(call);
  }

  heatMap(idOrGuest: string, cells: number): readonly HeatMapBlock[] {
    return this.desk.heatMap(idOrGuest, cells);
  }

  acceptTransfer(hello: Hello, channel: SourceChannel): void {
    const entry = this.desk.entries.get(hello.migrationId) ?? this.plans.get(hello.migrationId);
    const expected = entry?.cx.token ?? new Uint8Array();
    if (entry === undefined || hello.token.length !== expected.length || !timingSafeEqual(hello.token, expected))
      throw new MigrationFault("refused", "No migration waits for this destination");
    const { link, cx } = entry;
    if (link !== undefined && !cx.restartedStreams.takes(hello, link)) {
      link.attach(hello, channel);
      entry.arrived.resolve();
      return;
    }
    if (cx.report.status === "undoing") throw new MigrationFault("refused", "This migration is being undone");
    // a migration from the journal has no first stream. Until it waits for a new one, accept() refuses with a fault for
    // which the destination does not give up, since this agent is going to ask the destination
    cx.restartedStreams.accept(hello, channel);
  }

  /**
   * Lets migrations finish, or aborts them, as `shutdown.migrations` says, and leaves those that do not end to the
   * journal. All of this takes at most `shutdown.grace`.
   */
  async stop(): Promise<void> {
    const { clock, config } = this.parts;
    const { onShutdown, shutdownGraceMs } = config;
    const stopping = new MigrationFault("stopping", "The source agent is being stopped", {
      advice: "Migrate again when it is back",
    });
    const under = [...this.desk.entries.values(), ...this.plans.values()];
    const ends = (of: typeof under): Promise<unknown> => Promise.all(of.map(({ ended }) => ended));
    // a migration that waits for an operator, or for a host that comes back, does not end while the agent stops
    const toSettle = under.filter(({ cx }) => endsByItself(cx.report.status));
    if (onShutdown === "finish") await orLate(ends(toSettle), shutdownGraceMs - ABORT_RESERVE_MS, clock);
    for (const { cancel } of under) cancel.abort(stopping);
    if (toSettle.length > 0)
      await orLate(ends(toSettle), Math.min(ABORT_RESERVE_MS, shutdownGraceMs) - LEAVE_MS, clock);
    this.leaving.abort(stopping);
    await orLate(ends(under), LEAVE_MS, clock);
  }

  private newIdentity(): Identity {
    this.sequence = nextSequence([{ sequence: this.sequence }], this.parts.clock.nowUs() / 1000);
    return { id: randomBytes(6).toString("hex"), token: randomBytes(16), sequence: this.sequence };
  }

  private run(made: Made, from: SourceState): void {
    const { cx } = made;
    const announcer = new Announcer(() => cx.report.view(), cx.clock);
    const changed = (): void => announcer.changed(isFinal(cx.report.status) || cx.report.showsTerms);
    const ended = runSourceMigration(cx, changed, from).then((end) => {
      cx.restartedStreams.end();
      if (end === "left") return;
      this.desk.remember(cx);
      // the failure of a disk is reported when the next record is written
      pruneJournal(this.parts.journal, RECORDS_SLACK).catch(() => undefined);
      returnMemoryLater(this.isIdle);
    });
    this.desk.entries.set(cx.id, { ...made, ended, announcer });
  }

  /** Fills in the agent's own downtime target where the operator has named none. */
  private filled(asked: MigrateCall): MigrateCall {
    const downtimeTargetMs = asked.options.downtimeTargetMs || this.parts.config.downtimeTargetMs;
    return { ...asked, options: { ...asked.options, downtimeTargetMs } };
  }

  private makeContext(asked: MigrateCall, identity: Identity, chosenBecause = ""): Made {
    const { id, token, sequence, startedAtMs } = identity;
    this.parts.onBusy?.();
    const { config, clock, log, journal, limits, createKernels, keptMemory, faults } = this.parts;
    const call = this.filled(asked);
    const cancel = new AbortController();
    const arrived = deferred<void>();
    // a migration from the journal has no stream any more
    const link =
      startedAtMs === undefined
        ? new ResumingSource({
            patienceMs: config.link.giveUpAfterMs,
            peer: call.to,
            clock,
            noticedWithinMs: 2 * config.link.keepAliveMs,
          })
        : undefined;
    const cx: SourceContext = {
      id,
      call,
      chosenBecause,
      token,
      config,
      clock,
      // with a budget, since a destination may break its link again and again
      log: budgeted(log.child({ migration: id, guest: call.guest }), new LineBudget(LINES_OF_A_KIND, clock)),
      journal,
      report: new MigrationReport(id, call, clock, startedAtMs),
      limits,
      advertised: config.advertise.endsWith(":0") ? this.advertised : config.advertise,
      cancelled: cancel.signal,
      leaving: this.leaving.signal,
      words: new OperatorWords(),
      doubt: { isWithdrawn: identity.isWithdrawn === true },
      qemu: new OwnQemu(call.guest, config, clock, identity.qemu),
      sequence,
      cpuSecondsBefore: processUsage().cpuSeconds,
      createKernels,
      ...defined({ keptMemory }),
      dialledIn: async () => {
        if (link === undefined) throw new TypeError("a migration from the journal has no stream");
        await arrived.promise;
        return link;
      },
      restartedStreams: new RestartedStreams(call.to, clock),
      faults,
    };
    return { cx, cancel, arrived, link };
  }
}
