/**
 * Tells observers of a migration about its changes of state, most of them a little later than they happen. Making and
 * sending a view takes a millisecond or two. In the switchover one state follows the other, and the guest would stand
 * still for each view (docs/design/ownership.md#what-operators-see).
 */
import type { MigrationView } from "../../shared/protocol/report.ts";
import type { Clock, Timer } from "../../shared/runtime/clock.ts";

export type Observer = (view: MigrationView) => void;

/**
 * How late a change is announced, milliseconds. This is longer than the guest stands still in a switchover. Of several
 * changes in this time only the last is announced.
 */
const LATER_MS = 50;

export class Announcer {
  private readonly observers = new Set<Observer>();
  private readonly view: () => MigrationView;
  private readonly clock: Clock;
  private timer: Timer | undefined;

  constructor(view: () => MigrationView, clock: Clock) {
    this.view = view;
    this.clock = clock;
  }

  /** Tells the observer of the next change and all later ones. @returns a function that removes the observer */
  add(observer: Observer): () => void {
    this.observers.add(observer);
    return () => void this.observers.delete(observer);
  }

  /**
   * Notes that the migration is in another state.
   * @param atOnce true for a change that the next one must not replace: the final state, and the agreed terms
   */
  changed(atOnce: boolean): void {
    if (atOnce) this.tell();
    else this.timer ??= this.clock.after(LATER_MS, () => this.tell());
  }

  private tell(): void {
    this.clock.cancel(this.timer);
    this.timer = undefined;
    if (this.observers.size === 0) return;
    const view = this.view();
    for (const observer of [...this.observers]) observer(view);
  }
}
