/**
 * A clock that stands still until a test moves it, so that a test of an hour takes a moment, and is the same on a busy
 * machine. It knows nothing of real time: what waits for a socket or a process has to be awaited as ever.
 */
import { setImmediate } from "node:timers/promises";
import type { Clock, Timer } from "../../shared/runtime/clock.ts";

/** 2026-01-01, microseconds since the epoch: what nowUs() of a new clock says. */
export const FAKE_START_US = 1_767_225_600_000_000;

/** The steps of advanceUntil(), milliseconds. */
const STEP_MS = 10;

interface FakeTimer extends Timer {
  dueMs: number;
  /** How long after a call the next one comes, milliseconds; undefined where the call comes once. */
  readonly everyMs: number | undefined;
  readonly call: () => void;
}

export class FakeClock implements Clock {
  private ms = 0;
  private timers: FakeTimer[] = [];
  private readonly waiting = new Set<() => void>();

  nowUs(): number {
    return FAKE_START_US + Math.floor(this.ms * 1000);
  }

  monotonicMs(): number {
    return this.ms;
  }

  after(ms: number, call: () => void): Timer {
    return this.add(ms, undefined, call);
  }

  every(ms: number, call: () => void): Timer {
    return this.add(ms, Math.max(1, ms), call);
  }

  cancel(timer: Timer | undefined): void {
    this.timers = this.timers.filter((other) => other !== timer);
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.cancel(timer);
        reject(new DOMException("The wait was aborted", "AbortError"));
      };
      const timer = this.after(ms, () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      if (signal?.aborted === true) onAbort();
      else signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** How many calls are to come. */
  get pending(): number {
    return this.timers.length;
  }

  /** Moves the clock by `ms` milliseconds and makes no call, as when the process had no processor for so long. */
  jump(ms: number): void {
    this.ms += ms;
  }

  /** Resolves as soon as something waits for this clock. */
  async untilWaitedFor(): Promise<void> {
    if (this.timers.length > 0) return;
    await new Promise<void>((resolve) => this.waiting.add(resolve));
  }

  /**
   * Moves the clock by `ms` milliseconds and makes the calls that fall due on the way, each at its time and in the
   * order of their times. After each one, the promises that it settled go on before the clock moves further.
   */
  async advance(ms: number): Promise<void> {
    const endMs = this.ms + ms;
    await setImmediate();
    for (let next = this.nextBy(endMs); next !== undefined; next = this.nextBy(endMs)) {
      this.ms = Math.max(this.ms, next.dueMs);
      if (next.everyMs === undefined) this.cancel(next);
      else next.dueMs = this.ms + next.everyMs; // a call that comes late after a jump() comes once, as Node's do
      next.call();
      await setImmediate();
    }
    // a call may have let the clock jump meanwhile
    this.ms = Math.max(this.ms, endMs);
  }

  /**
   * Moves along with real time until a promise has settled: for a wait each of whose steps also waits for a socket or a
   * process.
   */
  async walkUntil(done: Promise<unknown>): Promise<void> {
    let isOver = false;
    const over = (): void => {
      isOver = true;
    };
    done.then(over, over);
    for (let lastMs = performance.now(); !isOver; ) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      const nowMs = performance.now();
      await this.advance(Math.floor(nowMs - lastMs));
      lastMs += Math.floor(nowMs - lastMs);
    }
  }

  /**
   * Moves the clock on in small steps until `is` returns true: for a wait each of whose steps happens in this process.
   * @param withinMs how far the clock may move, milliseconds
   * @throws Error naming what was waited for
   */
  async advanceUntil(is: () => boolean, what: string, withinMs = 60_000): Promise<void> {
    for (const endMs = this.ms + withinMs; !is(); await this.advance(STEP_MS))
      if (this.ms >= endMs) throw new Error(`The clock went on for ${withinMs} ms, and there was not ${what}`);
  }

  private nextBy(endMs: number): FakeTimer | undefined {
    const due = this.timers.filter(({ dueMs }) => dueMs <= endMs);
    return due.reduce<FakeTimer | undefined>(
      (first, timer) => (first === undefined || timer.dueMs < first.dueMs ? timer : first),
      undefined,
    );
  }

  private add(ms: number, everyMs: number | undefined, call: () => void): FakeTimer {
    const timer = { dueMs: this.ms + Math.max(0, ms), everyMs, call, unref: () => undefined };
    this.timers.push(timer);
    for (const resolve of this.waiting) resolve();
    this.waiting.clear();
    return timer;
  }
}
