/** Promises that are settled from outside, and waits with a bound. A wait without a bound may leave a guest hanging. */
import { MigrationFault } from "../fault.ts";
import { type Clock, systemClock } from "./clock.ts";

/** A promise with the two functions that settle it. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(fault: MigrationFault): void;
}

export function deferred<T>(): Deferred<T> {
  let resolve: (value: T) => void = () => undefined;
  let reject: (fault: MigrationFault) => void = () => undefined;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  // without this handler, a fault that nothing awaits would count as an unhandled rejection, although it is reported
  // where it arose; each await of the promise still throws the fault
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}

/** Settles as the promise does, or rejects with the signal's reason as a fault, whichever comes first. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    // nothing awaits the promise, so its own fault must not count as an unhandled rejection
    promise.catch(() => undefined);
    return Promise.reject(MigrationFault.from(signal.reason));
  }
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(MigrationFault.from(signal.reason));
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** Settles as the promise does, or rejects with the fault of `late` when that takes longer than `ms` milliseconds. */
export function within<T>(
  promise: Promise<T>,
  ms: number,
  late: () => MigrationFault,
  clock: Clock = systemClock,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = clock.after(ms, () => reject(late()));
    promise.then(resolve, reject).finally(() => clock.cancel(timer));
  });
}

/**
 * Carries out an action with a signal that is aborted as soon as `outer` is, or when `ms` milliseconds are over.
 * @param late makes the reason of a signal that is aborted because the time is over. @default an AbortError
 */
export async function endingAfter<T>(
  ms: number,
  outer: AbortSignal,
  clock: Clock,
  action: (signal: AbortSignal) => Promise<T>,
  late: () => MigrationFault | undefined = () => undefined,
): Promise<T> {
  const over = new AbortController();
  const timer = clock.after(ms, () => over.abort(late()));
  try {
    return await action(AbortSignal.any([outer, over.signal]));
  } finally {
    clock.cancel(timer);
  }
}

/** Waits until a promise has resolved or rejected. @returns false when that takes longer than `ms` milliseconds */
export function orLate(done: Promise<unknown>, ms: number, clock: Clock = systemClock): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = clock.after(Math.max(0, ms), () => resolve(false));
    const settled = (): void => {
      clock.cancel(timer);
      resolve(true);
    };
    done.then(settled, settled);
  });
}

/** Resolves when `signal` is aborted. If `over` is aborted first, the promise never resolves. */
export function onceAborted(signal: AbortSignal, over: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true, signal: over });
  });
}
