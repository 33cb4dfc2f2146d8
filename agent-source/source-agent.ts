/**
 * The operator's service: which guests there are, and the migrations of this agent's life and of the ones before it. A
 * guest has at most one migration under way.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { MigrationFault } from "../shared/fault.ts";
import type { SourceChannel, SourceService } from "../shared/link/link.ts";
import { ResumingSource } from "../shared/link/resuming-source.ts";
import { checkMigrations } from "../shared/protocol/handshake.ts";
import type { Hello } from "../shared/protocol/messages.ts";
import type { PlanCall, PlanView } from "../shared/protocol/plan-view.ts";
import {
  type GuestView,
  type HeatMapBlock,
  isFinal,
  type MigrateCall,
  type MigrationView,
  type ResolveCall,
} from "../shared/protocol/report.ts";
import { sourceStatus } from "../shared/protocol/source-states.ts";
import { deferred } from "../shared/runtime/deferred.ts";
import { loadGuest } from "../shared/runtime/guest-definition.ts";
import { processUsage } from "../shared/runtime/process-usage.ts";
import { returnMemoryLater } from "../shared/runtime/return-memory.ts";
import { Announcer } from "./announcer.ts";
import { FreshLinks } from "./fresh-links.ts";
import { listGuestViews } from "./guest-views.ts";
import { MigrationReport } from "./migration-report.ts";
import { checkWord } from "./operator-word.ts";
import { Planner } from "./planner.ts";
import { type Identity, type Made, recoverMigrations, type SourceAgentParts } from "./recovery.ts";
import type { SourceContext } from "./source-context.ts";
import { runSourceMigration } from "./source-migration.ts";
import type { SourceState } from "./source-state.ts";

interface Entry extends Made {
  readonly ended: Promise<unknown>;
  readonly announcer: Announcer;
}

/** Ended migrations that are remembered for `list`. */
const REMEMBERED = 100;
const WATCH_INTERVAL_MS = 200;
/** An operator who cancels is answered after this, also when QEMU does not answer. */
const CANCEL_ANSWERS_WITHIN_MS = 20_000;
/** Of the grace, kept for aborting what did not finish by itself. */
const ABORT_RESERVE_MS = 10_000;
/** To close what is open when everything else is left. */
const LEAVE_MS = 1000;

export class SourceAgent implements SourceService {
  /** Set once the server listens: where destinations dial. */
  advertised = "";
  private readonly parts: SourceAgentParts;
  private readonly leaving = new AbortController();
  /** Under way. */
  private readonly entries = new Map<string, Entry>();
  /** Guests that are only looked at. */
  private readonly plans = new Map<string, Made & { readonly ended: Promise<unknown> }>();
  private readonly planner = new Planner();
  /** Ended, oldest first. */
  private readonly history = new Map<string, MigrationView>();

  constructor(parts: SourceAgentParts) {
    this.parts = parts;
  }

  listGuests(): Promise<readonly GuestView[]> {
    const busy = new Map<string, string>();
    for (const { cx } of this.entries.values()) if (!isFinal(cx.report.status)) busy.set(cx.call.guest, cx.id);
    return listGuestViews(this.parts.config, busy);
  }

  /** What it opens is closed, and the guest is as it was, when this settles. */
  async plan(call: PlanCall): Promise<PlanView> {
    this.leaving.signal.throwIfAborted();
    const { guest } = call.migration;
    this.checkFree(guest);
    const made = this.makeContext(call.migration, this.newIdentity());
    const ended = this.planner.plan(call, made.cx);
    this.plans.set(made.cx.id, { ...made, ended: ended.catch(() => undefined) });
    try {
      return await ended;
    } finally {
      this.plans.delete(made.cx.id);
      if (call.observeMs > 0) returnMemoryLater(() => this.entries.size === 0);
    }
  }

  async migrate(asked: MigrateCall): Promise<string> {
    this.leaving.signal.throwIfAborted();
    // first: nothing may come between the checks and the entry, or two calls at once pass both
    await loadGuest(asked.guest, this.parts.config);
    this.checkFree(asked.guest);
    const { call, because } = this.planner.applied(this.filled(asked), this.parts.clock.monotonicMs());
    const made = this.makeContext(call, this.newIdentity(), because);
    this.run(made, { kind: "planned" });
    return made.cx.id;
  }

  /** @throws MigrationFault `guest-busy`, or `agent-busy` */
  private checkFree(guest: string): void {
    for (const { cx } of this.entries.values())
      if (cx.call.guest === guest && !isFinal(cx.report.status))
        throw new MigrationFault("guest-busy", `${guest} has migration ${cx.id} under way`, {
          advice: `Watch it with: ferry watch ${cx.id}`,
        });
    for (const { cx } of this.plans.values())
      if (cx.call.guest === guest)
        throw new MigrationFault("guest-busy", `${guest} is being looked at for a plan`, {
          advice: "Ask again when that has ended; it takes some seconds",
        });
    checkMigrations("source", this.entries.size + this.plans.size, this.parts.config.migrationsMax);
  }

  /** Takes up what an earlier life of this agent left under way; before anything is served. */
  async recover(): Promise<void> {
    for (const { made, state, endedAtMs } of await recoverMigrations(this.parts, (call, identity) =>
      this.makeContext(call, identity),
    ))
      if (state.kind === "released" || state.kind === "kept") this.recall(made.cx, state, endedAtMs);
      else this.run(made, state);
  }

  /** One that had ended before this agent started. */
  private recall(cx: SourceContext, state: SourceState, endedAtMs: number): void {
    if (state.kind === "kept") cx.report.failed(state.fault, "the guest stayed at the source");
    const status = sourceStatus(state.kind, state.kind === "kept" && state.fault.code === "cancelled");
    cx.report.ended(status, endedAtMs);
    this.history.set(cx.id, cx.report.view());
  }

  getMigration(id: string): MigrationView {
    return this.history.get(id) ?? this.entry(id).cx.report.view();
  }

  listMigrations(): readonly MigrationView[] {
    return [...this.history.values(), ...[...this.entries.values()].map(({ cx }) => cx.report.view())];
  }

  watch(id: string, observer: (view: MigrationView) => void): () => void {
    const past = this.history.get(id);
    if (past !== undefined) {
      observer(past);
      return () => undefined;
    }
    const { cx, announcer } = this.entry(id);
    const timer = setInterval(() => observer(cx.report.view()), WATCH_INTERVAL_MS);
    const end = (): void => {
      clearInterval(timer);
      forget();
    };
    const onChange = (view: MigrationView): void => {
      observer(view);
      if (isFinal(view.status)) end();
    };
    const forget = announcer.add(onChange);
    onChange(cx.report.view());
    return end;
  }

  async cancel(id: string): Promise<MigrationView> {
    const past = this.history.get(id);
    if (past !== undefined) return past;
    const { cx, cancel, ended } = this.entry(id);
    const { status } = cx.report;
    if (status === "granting" || status === "serving" || status === "inDoubt")
      throw new MigrationFault("too-late", `${id} cannot be cancelled any more: the guest is being handed over`, {
        advice: status === "inDoubt" ? `End it with: ferry resolve ${id}` : `Watch it with: ferry watch ${id}`,
      });
    cancel.abort(
      new MigrationFault("cancelled", "The migration was cancelled by the operator", {
        advice: "Nothing needs to be done",
      }),
    );
    await Promise.race([ended, delay(CANCEL_ANSWERS_WITHIN_MS, undefined, { ref: false })]);
    return cx.report.view();
  }

  heatMap(idOrGuest: string, cells: number): readonly HeatMapBlock[] {
    const byGuest = [...this.entries.values()].filter(({ cx }) => cx.call.guest === idOrGuest).at(-1);
    const entry = this.entries.get(idOrGuest) ?? byGuest;
    if (entry === undefined)
      throw new MigrationFault("migration-unknown", `No migration of ${idOrGuest} is under way`, {
        advice: "Heat is seen while a migration runs; start one, then ask again",
      });
    return entry.cx.report.heatMap(cells);
  }

  /** @throws MigrationFault `needs-confirmation` where the operator must have made sure of what cannot be asked */
  async resolve({ id, keep, confirmed }: ResolveCall): Promise<MigrationView> {
    const status = this.getMigration(id).status;
    if (status !== "inDoubt")
      throw new MigrationFault("not-in-doubt", `${id} is ${status}, not in doubt`, {
        advice: "Nothing needs to be resolved",
      });
    const { cx, ended } = this.entry(id);
    await checkWord(cx, keep, confirmed);
    cx.resolution.resolve(keep);
    await Promise.race([ended, delay(CANCEL_ANSWERS_WITHIN_MS, undefined, { ref: false })]);
    return cx.report.view();
  }

  acceptTransfer(hello: Hello, channel: SourceChannel): void {
    const entry = this.entries.get(hello.migrationId) ?? this.plans.get(hello.migrationId);
    const expected = entry?.cx.token ?? new Uint8Array();
    if (entry === undefined || hello.token.length !== expected.length || !timingSafeEqual(hello.token, expected))
      throw new MigrationFault("refused", "No migration waits for this destination");
    const { link, cx } = entry;
    if (link !== undefined && !cx.anew.takes(hello, link)) {
      link.attach(hello, channel);
      entry.arrived.resolve();
      return;
    }
    if (cx.report.status === "undoing") throw new MigrationFault("refused", "This migration is being undone");
    // one that was taken up from the journal has no stream: the destination will be asked, and must not give up for this
    cx.anew.accept(hello, channel);
  }

  /** Ends or aborts what can be, and leaves the rest to the journal; within `shutdown.grace`. */
  async stop(): Promise<void> {
    const { onShutdown, shutdownGraceMs } = this.parts.config;
    const stopping = new MigrationFault("stopping", "The source agent is being stopped", {
      advice: "Migrate again when it is back",
    });
    const under = [...this.entries.values(), ...this.plans.values()];
    const all = Promise.all(under.map(({ ended }) => ended));
    const within = (ms: number): Promise<unknown> =>
      Promise.race([all, delay(Math.max(0, ms), undefined, { ref: false })]);
    if (onShutdown === "finish") await within(shutdownGraceMs - ABORT_RESERVE_MS);
    for (const { cancel } of under) cancel.abort(stopping);
    const toSettle = under.filter(({ cx }) => cx.report.status !== "inDoubt");
    if (toSettle.length > 0) await within(Math.min(ABORT_RESERVE_MS, shutdownGraceMs) - LEAVE_MS);
    this.leaving.abort(stopping);
    await within(LEAVE_MS);
  }

  private newIdentity(): Identity {
    return { id: randomBytes(6).toString("hex"), token: randomBytes(16) };
  }

  private run(made: Made, from: SourceState): void {
    const { cx } = made;
    const announcer = new Announcer(() => cx.report.view());
    const changed = (): void => announcer.changed(isFinal(cx.report.status) || cx.report.showsTerms);
    const ended = runSourceMigration(cx, changed, from).then((end) => {
      if (end !== "left") this.remember(cx);
    });
    this.entries.set(cx.id, { ...made, ended, announcer });
  }

  /** With the agent's own wishes where the operator has none. */
  private filled(asked: MigrateCall): MigrateCall {
    const downtimeTargetMs = asked.options.downtimeTargetMs || this.parts.config.downtimeTargetMs;
    return { ...asked, options: { ...asked.options, downtimeTargetMs } };
  }

  private makeContext(asked: MigrateCall, { id, token, startedAtMs }: Identity, chosenBecause = ""): Made {
    this.parts.onBusy?.();
    const { config, clock, log, journal, limits, createKernels, faults } = this.parts;
    const call = this.filled(asked);
    const cancel = new AbortController();
    const arrived = deferred<void>();
    // what was taken up from the journal has no stream any more
    const link =
      startedAtMs === undefined
        ? new ResumingSource({
            patienceMs: config.link.giveUpAfterMs,
            peer: call.to,
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
      log: log.child({ migration: id, guest: call.guest }),
      journal,
      report: new MigrationReport(id, call, clock, startedAtMs),
      limits,
      advertised: config.advertise.endsWith(":0") ? this.advertised : config.advertise,
      cancelled: cancel.signal,
      leaving: this.leaving.signal,
      resolution: deferred(),
      cpuSecondsBefore: processUsage().cpuSeconds,
      createKernels,
      dialledIn: async () => {
        if (link === undefined) throw new TypeError("a migration from the journal has no stream");
        await arrived.promise;
        return link;
      },
      anew: new FreshLinks(call.to),
      faults,
    };
    return { cx, cancel, arrived, link };
  }

  private entry(id: string): Entry {
    const entry = this.entries.get(id);
    if (entry === undefined) throw unknown(id);
    return entry;
  }

  /** The end of a migration: only its view stays, so that its memory can go. */
  private remember(cx: SourceContext): void {
    this.history.set(cx.id, cx.report.view());
    this.entries.delete(cx.id);
    for (const id of this.history.keys()) if (this.history.size > REMEMBERED) this.history.delete(id);
    returnMemoryLater(() => this.entries.size === 0);
  }
}

const unknown = (id: string): MigrationFault =>
  new MigrationFault("migration-unknown", `There is no migration ${id}`, {
    advice: "See the migrations of this agent with: ferry list",
  });
