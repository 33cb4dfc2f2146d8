/** Reads the states of migrations from an agent's log, and holds a migration as it enters a state. */
import type { LogDestination } from "../../shared/runtime/log/log.ts";
import { TestFaults } from "../../shared/runtime/test-faults.ts";
import { eventually } from "../support/bounded.ts";

const WITHIN_MS = 30_000;

export class StateLog implements LogDestination {
  /** How many characters were logged. */
  length = 0;
  /** The longest line, characters. */
  longest = 0;
  /** The last lines, for a test that fails. */
  readonly lines: string[] = [];
  private readonly of = new Map<string, string[]>();

  write(line: string): void {
    this.length += line.length;
    this.longest = Math.max(this.longest, line.length);
    if (this.lines.push(line.slice(0, 400)) > 40) this.lines.shift();
    const { msg, state, migration } = JSON.parse(line);
    if (msg === "state" && typeof state === "string") this.states(String(migration)).push(state);
  }

  /** The states that a migration has entered. The state in which it began is not among them. */
  states(migration: string): string[] {
    const known = this.of.get(migration) ?? [];
    this.of.set(migration, known);
    return known;
  }

  /** Waits until the migration has been in one of these states. @returns the first of them in which it was */
  until(migration: string, ...wanted: readonly string[]): Promise<string> {
    const seen = (): string | undefined => this.states(migration).find((one) => wanted.includes(one));
    const what = (): string => `${wanted.join(" or ")} of ${migration}: ${this.states(migration).join(" ")}`;
    return eventually(seen, { timeoutMs: WITHIN_MS, what: what() }).catch((thrown: unknown) => {
      throw new Error(`${what()}\n${this.lines.join("")}`, { cause: thrown });
    });
  }
}

/** Holds a migration as it enters a state. */
export class Holds extends TestFaults {
  private wanted = "";
  private entered: string | undefined;
  private readonly free: (() => void)[] = [];

  /** Makes the next migration that enters this state wait there. */
  hold(state: string): void {
    this.wanted = state;
  }

  /** Waits until a migration is held. */
  async isHeld(): Promise<void> {
    await eventually(() => this.entered, { timeoutMs: WITHIN_MS, what: `a migration in ${this.wanted}` });
  }

  /** Lets each held migration go on, and holds none from now on. */
  release(): void {
    this.wanted = "";
    this.entered = undefined;
    for (const free of this.free.splice(0)) free();
  }

  override async at(point: string): Promise<void> {
    if (point !== this.wanted) return;
    this.entered = point;
    await new Promise<void>((resolve) => this.free.push(resolve));
  }
}
