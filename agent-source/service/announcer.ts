/**
 * Tells those who watch a migration of its states. As a rule not in the moment of the change: a view costs a millisecond or two, and in the
 * switchover, where one state follows the other, the guest stands still for each (docs/decisions/0033).
 */
import type { MigrationView } from "../../shared/protocol/report.ts";

export type Observer = (view: MigrationView) => void;

/** Longer than from a stopped guest to one that runs: of several changes the last is told. */
const LATER_MS = 50;

export class Announcer {
  private readonly observers = new Set<Observer>();
  private readonly view: () => MigrationView;
  private timer: NodeJS.Timeout | undefined;

  constructor(view: () => MigrationView) {
    this.view = view;
  }

  /** From the next change on. @returns ends it */
  add(observer: Observer): () => void {
    this.observers.add(observer);
    return () => void this.observers.delete(observer);
  }

  /** The migration is in another state. @param atOnce what is not to be lost behind the next: the last one, and what was agreed */
  changed(atOnce: boolean): void {
    if (atOnce) this.tell();
    else this.timer ??= setTimeout(() => this.tell(), LATER_MS);
  }

  private tell(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.observers.size === 0) return;
    const view = this.view();
    for (const observer of [...this.observers]) observer(view);
  }
}
