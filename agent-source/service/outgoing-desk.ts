/**
 * Answers the operator at a source: lists the migrations that leave this host or have left it, and takes the words that
 * end them.
 */
import { MigrationFault } from "../../shared/fault.ts";
import type { MigrationOperator } from "../../shared/link/link.ts";
import type { SourceRecord } from "../../shared/protocol/ownership.ts";
import {
  type HeatMapBlock,
  isFinal,
  type MigrationStatus,
  type MigrationView,
  type ResolveCall,
  unreadableView,
} from "../../shared/protocol/report.ts";
import { sourceStatus } from "../../shared/protocol/source-states.ts";
import { orLate } from "../../shared/runtime/deferred.ts";
import type { Journal } from "../../shared/runtime/journal/journal.ts";
import { keepLatest } from "../../shared/runtime/keep-latest.ts";
import type { SourceContext } from "../migration/source-context.ts";
import type { SourceState } from "../migration/source-state.ts";
import type { Announcer } from "./announcer.ts";
import { checkResolution } from "./check-resolution.ts";
import type { Made } from "./recovery.ts";

/** A migration under way. */
export interface Outgoing extends Made {
  readonly ended: Promise<unknown>;
  readonly announcer: Announcer;
}

/** How many ended migrations are remembered for `list`. */
const REMEMBERED = 100;
const WATCH_INTERVAL_MS = 200;
/**
 * An operator's cancel or word is answered after this time, milliseconds, even if the migration has not settled, since
 * QEMU may not answer.
 */
const ANSWERS_WITHIN_MS = 20_000;
/** Statuses that only an operator, or a host that comes back, brings to an end. */
const TO_BE_RESOLVED: readonly MigrationStatus[] = ["inDoubt", "doubled"];
/** Statuses in which the guest has been given away, or may have been: it is too late to cancel. */
const TOO_LATE: readonly MigrationStatus[] = ["granting", "serving", ...TO_BE_RESOLVED];

/** True for a status that is not final, and that ends without an operator and without the return of a host. */
export const endsByItself = (status: MigrationStatus): boolean => !isFinal(status) && !TO_BE_RESOLVED.includes(status);

export class OutgoingDesk implements MigrationOperator {
  /**
   * Migrations under way, by id. Among them are migrations in the state *withdrawing*: these are over for their
   * operator, but their destination has not heard yet that the guest stays here.
   */
  readonly entries = new Map<string, Outgoing>();
  /** Views of ended migrations, the oldest first. */
  private readonly history = new Map<string, MigrationView>();

  private readonly journal: Journal<SourceRecord>;

  constructor(journal: Journal<SourceRecord>) {
    this.journal = journal;
  }

  /** Guests that are being moved, each with the id of its migration. */
  get busyGuests(): ReadonlyMap<string, string> {
    const under = [...this.entries.values()].filter(({ cx }) => !isFinal(cx.report.status));
    return new Map(under.map(({ cx }) => [cx.call.guest, cx.id]));
  }

  /**
   * Remembers a migration that had ended before this agent started.
   * @param endedAtMs when it ended, milliseconds since the epoch
   */
  recall(cx: SourceContext, state: SourceState, endedAtMs: number): void {
    if (state.kind === "kept") cx.report.failed(state.fault, "the guest stayed at the source");
    if (state.kind === "stranded") cx.report.failed(state.fault, "");
    const status = sourceStatus(state.kind, state.kind === "kept" && state.fault.code === "cancelled");
    cx.report.ended(status, endedAtMs);
    this.history.set(cx.id, cx.report.view());
  }

  /** Remembers a migration that ends. Only its view is kept, so that its memory can be freed. */
  remember(cx: SourceContext): void {
    this.history.set(cx.id, cx.report.view());
    this.entries.delete(cx.id);
    keepLatest(this.history, REMEMBERED);
  }

  getMigration(id: string): MigrationView {
    return this.history.get(id) ?? this.entry(id).cx.report.view();
  }

  listMigrations(): readonly MigrationView[] {
    const under = [...this.entries.values()].map(({ cx }) => cx.report.view());
    return [
      ...this.history.values(),
      ...under,
      ...this.journal.unreadable.map(([file, why]) => unreadableView(file, why)),
    ];
  }

  watch(id: string, observer: (view: MigrationView) => void): () => void {
    const past = this.history.get(id);
    if (past !== undefined) {
      observer(past);
      return () => undefined;
    }
    const { cx, announcer } = this.entry(id);
    const timer = cx.clock.every(WATCH_INTERVAL_MS, () => observer(cx.report.view()));
    const end = (): void => {
      cx.clock.cancel(timer);
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
    const { cx, cancel } = this.entry(id);
    const { status } = cx.report;
    if (isFinal(status)) return cx.report.view();
    if (TOO_LATE.includes(status))
      throw new MigrationFault("too-late", `${id} cannot be cancelled any more: the guest is being handed over`, {
        advice: TO_BE_RESOLVED.includes(status)
          ? `End it with: ferry resolve ${id}`
          : `Watch it with: ferry watch ${id}`,
      });
    cancel.abort(
      new MigrationFault("cancelled", "The migration was cancelled by the operator", {
        advice: "Nothing needs to be done",
      }),
    );
    await this.untilSettled(id);
    return cx.report.view();
  }

  /**
   * Takes an operator's word. Of two words at once the first takes effect; the other gets `not-in-doubt`.
   * @throws MigrationFault `not-in-doubt` when the migration waits for no word; `not-resolvable` when another agent or
   *   QEMU contradicts the word; `needs-confirmation` when the operator must first make sure of what no agent can check
   */
  async resolve({ id, keep, confirmed }: ResolveCall): Promise<MigrationView> {
    const past = this.history.get(id);
    if (past?.error?.code === "pages-lost" && keep === "source") return this.takeStranded(past, confirmed);
    const status = this.getMigration(id).status;
    if (!TO_BE_RESOLVED.includes(status)) throw notInDoubt(id, status);
    const { cx } = this.entry(id);
    const { turn } = cx.words;
    await checkResolution(cx, keep, confirmed);
    // the check takes its time: another word, or the destination, may have been first
    if (cx.words.turn !== turn || !cx.words.say(keep)) throw notInDoubt(id, cx.report.status);
    await this.untilSettled(id);
    return cx.report.view();
  }

  /**
   * Takes the word that a guest which has lost pages in post-copy belongs to this host again, where it may then be
   * started again. This host has nothing of the guest: only the journal record changes.
   */
  private async takeStranded(past: MigrationView, confirmed: boolean): Promise<MigrationView> {
    const { id, destination, error } = past;
    if (!confirmed)
      throw new MigrationFault("needs-confirmation", `${destination} may still have what is left of the guest`, {
        advice: `See that it is ended there (ferry --agent ${destination} list), then repeat with --yes: the guest is to be started anew here`,
      });
    const record = await this.journal.read(id);
    if (record?.kind !== "released" || error === undefined) throw notInDoubt(id, past.status);
    await this.journal.write(id, { ...record, kind: "kept" });
    const guestNow = "the guest is gone; it may be started anew on this host";
    const view = { ...past, error: { ...error, guestNow, advice: "Start the guest anew on this host" } };
    this.history.set(id, view);
    return view;
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

  /** Resolves when the migration has ended, or waits for a host or for the next word, or after ANSWERS_WITHIN_MS. */
  private untilSettled(id: string): Promise<unknown> {
    const { ended, announcer, cx } = this.entry(id);
    let forget = (): void => undefined;
    const isOver = new Promise<void>((resolve) => {
      forget = announcer.add(({ status }) => {
        if (!endsByItself(status)) resolve();
      });
    });
    return orLate(Promise.race([ended, isOver]), ANSWERS_WITHIN_MS, cx.clock).finally(forget);
  }

  private entry(id: string): Outgoing {
    const entry = this.entries.get(id);
    if (entry !== undefined) return entry;
    throw new MigrationFault("migration-unknown", `There is no migration ${id}`, {
      advice: "See the migrations of this agent with: ferry list",
    });
  }
}

const notInDoubt = (id: string, status: MigrationStatus): MigrationFault =>
  new MigrationFault("not-in-doubt", `${id} is ${status}, and waits for no operator's word: the word had no effect`, {
    advice: "Nothing needs to be resolved",
  });
