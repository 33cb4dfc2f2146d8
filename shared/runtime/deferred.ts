/** Promises that are settled from outside, and waits with a bound. A wait without one is a guest that hangs. */
import { MigrationFault } from "../fault.ts";

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
  // whoever waits sees the fault; a fault that nobody waits for is reported where it arose
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}

/** The promise, or the signal's reason as a fault, whichever comes first. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    // it was begun, and its own fault comes second
    promise.catch(() => undefined);
    return Promise.reject(MigrationFault.from(signal.reason));
  }
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(MigrationFault.from(signal.reason));
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** The promise, or the fault when it takes longer than `ms`. */
export function within<T>(promise: Promise<T>, ms: number, late: () => MigrationFault): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(late()), ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** Waits until a promise has resolved or rejected. @returns false when that takes longer than `ms` milliseconds */
export function orLate(done: Promise<unknown>, ms: number): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), Math.max(0, ms));
    const settled = (): void => {
      clearTimeout(timer);
      resolve(true);
    };
    done.then(settled, settled);
  });
}

/** Resolves when the signal is aborted; never, once `over` is. */
export function onceAborted(signal: AbortSignal, over: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true, signal: over });
  });
}
