/**
 * Answers the operator at a destination. It shows and cancels the migrations that come to this host, and takes the
 * operator's word (`ferry resolve`) on a migration that no agent can settle.
 */
import { defined } from "../../shared/defined.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { MigrationOperator } from "../../shared/link/link.ts";
import type { DestinationRecord } from "../../shared/protocol/ownership.ts";
import { isFinal, type MigrationView, type ResolveCall, unreadableView } from "../../shared/protocol/report.ts";
import { type Clock, systemClock, type Timer } from "../../shared/runtime/clock.ts";
import { orLate } from "../../shared/runtime/deferred.ts";
import type { Journal } from "../../shared/runtime/journal/journal.ts";
import { keepLatest } from "../../shared/runtime/keep-latest.ts";
import type { DestinationState } from "../migration/destination-state.ts";
import { endUnseen } from "../migration/end-by-word.ts";
import type { Incoming, Named } from "./incoming.ts";
import { incomingView, recordedState } from "./incoming-view.ts";
import type { DestinationAgentParts } from "./recovery.ts";

/** How many ended migrations are remembered for `list`; the oldest ones are forgotten first. */
const REMEMBERED = 100;
/** How often a watched migration is compared with what its observer was told last, milliseconds. */
const WATCH_INTERVAL_MS = 200;
/** What a view says of the source and of the QEMU here once a migration has ended: the agent then asks neither. */
const UNHEARD = { sourceIsThere: false, isUnseen: false, news: "" } as const;
/**
 * How long cancel() and resolve() wait for their effect, milliseconds. After that they return the view of that moment.
 */
const ANSWERS_WITHIN_MS = 20_000;

/** The operators' service of a destination agent. */
export class IncomingDesk implements MigrationOperator {
  private readonly journal: Journal<DestinationRecord>;
  private readonly entries: ReadonlyMap<string, Incoming>;
  private readonly clock: Clock;
  /**
   * The refused guests that somebody other than an agent has started, by migration. The value is true where the guest
   * has all of its pages.
   */
  private readonly started = new Map<string, boolean>();
  /** The views of ended migrations, the oldest first. */
  private readonly history = new Map<string, MigrationView>();

  constructor(journal: Journal<DestinationRecord>, entries: ReadonlyMap<string, Incoming>, clock: Clock = systemClock) {
    this.journal = journal;
    this.entries = entries;
    this.clock = clock;
  }

  /** Remembers a migration that had ended before this agent started. */
  recall(named: Named, state: DestinationState, { config }: Pick<DestinationAgentParts, "config">): void {
    this.note(incomingView(state, { cx: named, here: config.listen[0] ?? "", ...UNHEARD }));
  }

  /** Remembers a migration that ends now, or is left to the next agent because this one ends. */
  remember({ view, state }: Incoming): void {
    if (state.kind === "doubled") this.started.set(view.id, state.isWhole);
    this.note(view);
  }

  /**
   * Tells whether somebody has started a guest against its refusal.
   * @returns whether that guest has all of its pages; undefined when no such start was seen
   */
  doubled(id: string): boolean | undefined {
    return this.started.get(id);
  }

  getMigration(id: string): MigrationView {
    const found = this.find(id);
    if (found !== undefined) return found;
    throw new MigrationFault("migration-unknown", `No migration ${id} has come to this host`, {
      advice: "See those that did with: ferry list; and ask the source agent for those that leave a host",
    });
  }

  private find(id: string): MigrationView | undefined {
    return this.entries.get(id)?.view ?? this.history.get(id);
  }

  listMigrations(): readonly MigrationView[] {
    const under = [...this.entries.values()].map(({ view }) => view);
    return [
      ...this.history.values(),
      ...under,
      ...this.journal.unreadable.map(([file, why]) => unreadableView(file, why)),
    ];
  }

  watch(id: string, observer: (view: MigrationView) => void): () => void {
    let last = "";
    let timer: Timer | undefined;
    const look = (): void => {
      const view = this.find(id);
      // the migration ended long ago and was forgotten
      if (view === undefined) {
        this.clock.cancel(timer);
        return;
      }
      const text = JSON.stringify(view);
      if (text === last) return;
      last = text;
      if (isFinal(view.status)) this.clock.cancel(timer);
      observer(view);
    };
    this.getMigration(id);
    timer = this.clock.every(WATCH_INTERVAL_MS, look);
    look();
    return () => this.clock.cancel(timer);
  }

  async cancel(id: string): Promise<MigrationView> {
    const entry = this.entries.get(id);
    if (entry === undefined) return this.getMigration(id);
    if (!IS_PART.includes(entry.state.kind))
      throw new MigrationFault("too-late", `${id} cannot be cancelled any more: this host has the whole guest`, {
        advice: `See where it belongs with ferry list, at both agents; then ferry resolve ${id} --keep source|destination`,
      });
    entry.cancel(
      new MigrationFault("cancelled", "The migration was cancelled by the operator of its destination", {
        advice: "Nothing needs to be done",
      }),
    );
    await orLate(entry.ended, ANSWERS_WITHIN_MS, this.clock);
    return this.getMigration(id);
  }

  /**
   * Takes an operator's word on a guest that waits here, misses pages, was started here and has ended, or whose QEMU
   * does not answer this agent.
   * @throws MigrationFault `needs-confirmation` with what the operator must make sure of first; `not-resolvable` while
   *   the source is in contact, or if the guest cannot run here; `not-in-doubt` when the migration waits for no word
   */
  async resolve({ id, keep, confirmed }: ResolveCall): Promise<MigrationView> {
    const entry = this.entries.get(id);
    if (entry === undefined) return this.resolveLost(id, keep, confirmed);
    if (entry.isUnseen) return this.endUnseen(entry, keep, confirmed);
    const { kind } = entry.state;
    const missesPages = entry.pulls || (kind === "loaded" && entry.state.postcopy !== undefined);
    if (kind !== "loaded" && kind !== "withheld" && !missesPages) throw asksForNothing(id, kind);
    if (entry.sourceIsThere)
      throw new MigrationFault(
        "not-resolvable",
        `${entry.cx.source} is in contact with this agent, so the word must be given there`,
        {
          advice: `ferry --agent ${entry.cx.source} list says how it stands there; then cancel or resolve it there`,
        },
      );
    if (missesPages && keep === "destination") throw missesItsPages(entry.cx);
    if (!confirmed) throw entry.pulls ? endsTheOnly(entry.cx) : needsConfirmation(entry.cx.source, keep);
    if (!entry.cx.claims.say(keep === "destination" ? "here" : "end")) throw asksForNothing(id, entry.state.kind);
    await orLate(entry.ended, ANSWERS_WITHIN_MS, this.clock);
    return this.getMigration(id);
  }

  /**
   * Takes a word on a guest whose QEMU does not answer this agent. The word only ends that QEMU. The next look of
   * *adopting* finds that the QEMU has ended, and the migration goes on from there. The word is taken even while the
   * source is in contact: as long as the QEMU does not answer, the source is told that nothing is decided, so it cannot
   * settle the migration.
   */
  private async endUnseen(entry: Incoming, keep: ResolveCall["keep"], confirmed: boolean): Promise<MigrationView> {
    const { cx, state } = entry;
    const qemu = state.kind === "adopting" ? state.record.qemu : undefined;
    if (keep === "destination" || qemu === undefined) throw cannotBeLookedAt(cx, qemu?.pid);
    if (!confirmed) throw endsUnseen(cx, qemu.pid);
    await endUnseen(qemu, () => entry.isUnseen, cx);
    const deadline = this.clock.monotonicMs() + ANSWERS_WITHIN_MS;
    while (entry.state.kind === "adopting" && this.clock.monotonicMs() < deadline)
      await orLate(entry.nextChange, deadline - this.clock.monotonicMs(), this.clock);
    return this.getMigration(cx.id);
  }

  /**
   * Takes a word on a guest that was started here and has ended. The word changes only the record, which from then on
   * says at which host the guest belongs.
   */
  private async resolveLost(id: string, keep: ResolveCall["keep"], confirmed: boolean): Promise<MigrationView> {
    const view = this.getMigration(id);
    const record = await this.journal.read(id);
    if (view.status !== "inDoubt" || record === undefined || record.kind === "refused")
      throw asksForNothing(id, record?.kind === "refused" ? "refused" : view.status);
    if (!confirmed) throw needsConfirmation(record.source, keep);
    const settled: DestinationRecord =
      keep === "destination"
        ? { ...record, kind: "arrived" }
        : { ...record, kind: "refused", reason: "the operator gave the guest back to its source", heard: true };
    await this.journal.write(id, settled);
    const { status, error } = incomingView(recordedState(settled), {
      cx: { id, guest: record.guest, source: record.source, startedAtMs: record.startedAtMs },
      here: view.destination,
      ...UNHEARD,
    });
    const { error: _, ...rest } = view;
    this.note({ ...rest, status, ...defined({ error }) });
    return this.getMigration(id);
  }

  /** Puts a view into the history as the latest one. */
  private note(view: MigrationView): void {
    this.history.delete(view.id);
    this.history.set(view.id, view);
    keepLatest(this.history, REMEMBERED);
  }
}

/** States in which this host has only a part of the guest. */
const IS_PART: readonly DestinationState["kind"][] = ["negotiating", "staging", "receiving", "loading"];

const asksForNothing = (id: string, state: string): MigrationFault =>
  new MigrationFault(
    "not-in-doubt",
    `${id} is ${state} here, and waits for no operator's word: the word had no effect`,
    {
      advice: "Nothing needs to be resolved at this agent",
    },
  );

const cannotBeLookedAt = ({ id, guest }: Incoming["cx"], pid: number | undefined): MigrationFault =>
  new MigrationFault(
    "not-resolvable",
    `The QEMU of ${guest} does not answer this agent, so the agent cannot act on the word`,
    {
      advice:
        pid === undefined
          ? "Find the process of that QEMU; the agent goes on when that QEMU answers again or has ended"
          : `Free its monitor where another client holds it; where process ${pid} is stuck for good, ferry resolve ${id} --keep source ends it`,
    },
  );

const endsUnseen = ({ source }: Incoming["cx"], pid: number): MigrationFault =>
  new MigrationFault(
    "needs-confirmation",
    `The copy of the guest here may be the only one, and it may have run here: to end it loses what it has done here`,
    {
      advice: `Make sure that no other client holds the monitor of process ${pid}, and that ${source} still has its copy or the guest is not needed any more; then repeat with --yes, which ends that process`,
    },
  );

const missesItsPages = ({ id, source }: Incoming["cx"]): MigrationFault =>
  new MigrationFault(
    "not-resolvable",
    `The guest misses pages, which only ${source} has: no operator's word can bring them`,
    {
      advice: `Wait for the source where it comes back; where it is lost for good: ferry resolve ${id} --keep source`,
    },
  );

const endsTheOnly = ({ source }: Incoming["cx"]): MigrationFault =>
  new MigrationFault("needs-confirmation", `The guest was started here: to end it loses what it has done since`, {
    advice: `Make sure that ${source}, or its QEMU of the guest, is lost for good, and save what the guest can still do; then repeat with --yes to end it`,
  });

function needsConfirmation(source: string, keep: ResolveCall["keep"]): MigrationFault {
  return keep === "destination"
    ? new MigrationFault("needs-confirmation", `${source} may run the guest, or start it later`, {
        advice:
          "Make sure that the guest does not run there and never will (its host is off for good, or its agent says in doubt and is resolved for the destination), then repeat with --yes",
      })
    : new MigrationFault("needs-confirmation", `The copy here may be the only one, if ${source} has lost its own`, {
        advice:
          "Make sure that the guest is whole at its source, or is not needed, then repeat with --yes to end the copy",
      });
}
