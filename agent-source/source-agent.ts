/**
 * The operator's service: which guests there are, and the migrations of this agent's life. A guest has at most one
 * migration under way.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { MigrationFault } from "../shared/fault.ts";
import type { LinkLimits, SourceChannel, SourceService } from "../shared/link/link.ts";
import type { PageKernels } from "../shared/page/kernels.ts";
import type { SourceRecord } from "../shared/protocol/ownership.ts";
import {
  type GuestView,
  type HeatMapBlock,
  isFinal,
  type MigrateCall,
  type MigrationView,
  type PlanView,
} from "../shared/protocol/report.ts";
import { inspectSource } from "../shared/qemu/preflight.ts";
import { QmpClient } from "../shared/qemu/qmp-client.ts";
import type { Clock } from "../shared/runtime/clock.ts";
import type { SourceConfig } from "../shared/runtime/config.ts";
import { type Deferred, deferred } from "../shared/runtime/deferred.ts";
import { loadGuest } from "../shared/runtime/guest-definition.ts";
import type { Journal } from "../shared/runtime/journal.ts";
import type { Logger } from "../shared/runtime/log.ts";
import { processUsage } from "../shared/runtime/process-usage.ts";
import { returnMemoryLater } from "../shared/runtime/return-memory.ts";
import { listGuestViews } from "./guest-views.ts";
import { MigrationReport } from "./migration-report.ts";
import { askDestination, negotiatedView } from "./phases/negotiate.ts";
import type { SourceContext } from "./source-context.ts";
import { runSourceMigration } from "./source-migration.ts";

export interface SourceAgentParts {
  readonly config: SourceConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly journal: Journal<SourceRecord>;
  readonly limits: LinkLimits;
  readonly createKernels: (byteLength: number) => PageKernels;
}

interface Entry {
  readonly cx: SourceContext;
  readonly cancel: AbortController;
  readonly arrival: Deferred<SourceChannel>;
  readonly ended: Promise<unknown>;
  readonly observers: Set<(view: MigrationView) => void>;
}

/** Ended migrations that are remembered for `list`. */
const REMEMBERED = 100;
const WATCH_INTERVAL_MS = 200;

export class SourceAgent implements SourceService {
  /** Set once the server listens: where destinations dial. */
  advertised = "";
  private readonly parts: SourceAgentParts;
  /** Under way. */
  private readonly entries = new Map<string, Entry>();
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

  async plan(call: MigrateCall): Promise<PlanView> {
    const { cx } = this.makeContext(call);
    const definition = await loadGuest(call.guest, cx.config);
    const qmp = await QmpClient.connect(definition.qmp, { timeoutMs: cx.config.qmpTimeoutMs });
    try {
      const facts = await inspectSource(qmp);
      if (facts.refusals.length > 0) return { accepted: false, refusals: facts.refusals, negotiated: {} };
      const contract = await askDestination(cx, definition, facts, true);
      return { accepted: true, refusals: [], negotiated: negotiatedView(contract, cx) };
    } catch (thrown) {
      const fault = MigrationFault.from(thrown);
      if (fault.code !== "refused") throw fault;
      return { accepted: false, refusals: fault.refusals, negotiated: {} };
    } finally {
      qmp.close();
    }
  }

  async migrate(call: MigrateCall): Promise<string> {
    for (const { cx } of this.entries.values())
      if (cx.call.guest === call.guest && !isFinal(cx.report.status))
        throw new MigrationFault("guest-busy", `${call.guest} has migration ${cx.id} under way`, {
          advice: `Watch it with: ferry watch ${cx.id}`,
        });
    await loadGuest(call.guest, this.parts.config);
    const { cx, cancel, arrival } = this.makeContext(call);
    const observers = new Set<(view: MigrationView) => void>();
    const changed = (): void => {
      for (const observer of observers) observer(cx.report.view());
    };
    const ended = runSourceMigration(cx, changed).then(() => this.remember(cx));
    this.entries.set(cx.id, { cx, cancel, arrival, ended, observers });
    return cx.id;
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
    const { cx, observers } = this.entry(id);
    const tell = (): void => observer(cx.report.view());
    const end = (): void => {
      clearInterval(timer);
      observers.delete(onChange);
    };
    const onChange = (view: MigrationView): void => {
      observer(view);
      if (isFinal(view.status)) end();
    };
    const timer = setInterval(tell, WATCH_INTERVAL_MS);
    observers.add(onChange);
    onChange(cx.report.view());
    return end;
  }

  async cancel(id: string): Promise<MigrationView> {
    const past = this.history.get(id);
    if (past !== undefined) return past;
    const { cx, cancel, ended } = this.entry(id);
    if (cx.report.status === "granting" || cx.report.status === "inDoubt")
      throw new MigrationFault(
        "not-supported",
        `${id} is past the point where it can be cancelled: the guest was granted`,
        {
          advice: `Watch it with: ferry watch ${id}`,
        },
      );
    cancel.abort(
      new MigrationFault("cancelled", "The migration was cancelled by the operator", {
        advice: "Nothing needs to be done",
      }),
    );
    await ended;
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

  async resolve(id: string, keep: "source" | "destination"): Promise<MigrationView> {
    const status = this.getMigration(id).status;
    if (status !== "inDoubt")
      throw new MigrationFault("not-in-doubt", `${id} is ${status}, not in doubt`, {
        advice: "Nothing needs to be resolved",
      });
    const { cx, ended } = this.entry(id);
    cx.resolution.resolve(keep);
    await ended;
    return cx.report.view();
  }

  acceptTransfer(hello: { migrationId: string; token: Uint8Array }, channel: SourceChannel): void {
    const entry = this.entries.get(hello.migrationId);
    const expected = entry?.cx.token ?? new Uint8Array();
    if (entry === undefined || hello.token.length !== expected.length || !timingSafeEqual(hello.token, expected))
      throw new MigrationFault("refused", "No migration waits for this destination");
    entry.arrival.resolve(channel);
  }

  /** Cancels what can be cancelled and waits for it, at most `graceMs`. */
  async stop(): Promise<void> {
    const stopping = new MigrationFault("stopping", "The source agent is being stopped", {
      advice: "Migrate again when it is back",
    });
    const live = [...this.entries.values()].filter(
      ({ cx }) => !isFinal(cx.report.status) && cx.report.status !== "inDoubt",
    );
    for (const { cx, cancel } of live) if (cx.report.status !== "granting") cancel.abort(stopping);
    await Promise.all(live.map(({ ended }) => ended));
  }

  private makeContext(asked: MigrateCall): {
    cx: SourceContext;
    cancel: AbortController;
    arrival: Deferred<SourceChannel>;
  } {
    const { config, clock, log, journal, limits, createKernels } = this.parts;
    const downtimeTargetMs = asked.options.downtimeTargetMs || config.downtimeTargetMs;
    const call = { ...asked, options: { ...asked.options, downtimeTargetMs } };
    const id = randomBytes(6).toString("hex");
    const cancel = new AbortController();
    const arrival = deferred<SourceChannel>();
    const cx: SourceContext = {
      id,
      call,
      token: randomBytes(16),
      config,
      clock,
      log: log.child({ migration: id, guest: call.guest }),
      journal,
      report: new MigrationReport(id, call, clock),
      limits,
      advertised: config.advertise.endsWith(":0") ? this.advertised : config.advertise,
      cancelled: cancel.signal,
      resolution: deferred(),
      cpuSecondsBefore: processUsage().cpuSeconds,
      createKernels,
      dialledIn: () => arrival.promise,
    };
    return { cx, cancel, arrival };
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
