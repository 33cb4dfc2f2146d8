/** Shows the progress of a migration: redrawn in place, as plain lines, or as JSON. */
import { isFinal, type MigrationStatus, type MigrationView } from "../shared/protocol/report.ts";
import { AgreedTerms } from "./agreed-terms.ts";
import { jsonLine } from "./json.ts";
import { plainLine, progressLine } from "./progress-bar.ts";
import type { Terminal } from "./terminal.ts";

export interface ProgressDisplay {
  show(view: MigrationView): void;
  /** Says something to the operator between two views. */
  note(text: string): void;
  /** Leaves the terminal as it was found. */
  end(): void;
}

const REDRAW_MS = 100;
const PLAIN_MS = 1000;
const CLEAR_LINE = "\r\u001b[K";

export function createDisplay(terminal: Terminal, json: boolean): ProgressDisplay {
  if (json) return new JsonDisplay(terminal);
  return terminal.isInteractive ? new LiveDisplay(terminal) : new PlainDisplay(terminal);
}

/** Chooses the views to show: each with a new status, and between these at most one in `everyMs` milliseconds. */
class Throttle {
  private readonly everyMs: number;
  private status: MigrationStatus | undefined;
  private lastMs = Number.NEGATIVE_INFINITY;

  constructor(everyMs: number) {
    this.everyMs = everyMs;
  }

  lets(view: MigrationView, nowMs: number): boolean {
    if (view.status === this.status && nowMs - this.lastMs < this.everyMs) return false;
    this.status = view.status;
    this.lastMs = nowMs;
    return true;
  }
}

/** Redraws one line in place, on a terminal. */
class LiveDisplay implements ProgressDisplay {
  private readonly terminal: Terminal;
  private readonly throttle = new Throttle(REDRAW_MS);
  private readonly terms = new AgreedTerms();

  constructor(terminal: Terminal) {
    this.terminal = terminal;
  }

  show(view: MigrationView): void {
    if (isFinal(view.status)) return;
    for (const line of this.terms.news(view.negotiated)) this.note(line);
    if (!this.throttle.lets(view, this.terminal.monotonicMs())) return;
    // the last column stays free, because terminals differ in when they wrap a line
    this.terminal.out(CLEAR_LINE + progressLine(view, this.terminal.columns() - 1));
  }

  note(text: string): void {
    this.terminal.out(`${CLEAR_LINE}${text}\n`);
  }

  end(): void {
    this.terminal.out(CLEAR_LINE);
  }
}

/** Writes one line after the other, as for a log. */
class PlainDisplay implements ProgressDisplay {
  private readonly terminal: Terminal;
  private readonly throttle = new Throttle(PLAIN_MS);
  private readonly terms = new AgreedTerms();

  constructor(terminal: Terminal) {
    this.terminal = terminal;
  }

  show(view: MigrationView): void {
    if (!isFinal(view.status)) for (const line of this.terms.news(view.negotiated)) this.terminal.out(`${line}\n`);
    if (this.throttle.lets(view, this.terminal.monotonicMs())) this.terminal.out(`${plainLine(view)}\n`);
  }

  note(text: string): void {
    this.terminal.err(`${text}\n`);
  }

  end(): void {}
}

/** Writes every view as one line of JSON. The last view has the result. Notes go to standard error. */
class JsonDisplay implements ProgressDisplay {
  private readonly terminal: Terminal;

  constructor(terminal: Terminal) {
    this.terminal = terminal;
  }

  show(view: MigrationView): void {
    this.terminal.out(jsonLine(view));
  }

  note(text: string): void {
    this.terminal.err(`${text}\n`);
  }

  end(): void {}
}
