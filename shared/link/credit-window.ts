/**
 * Bytes in flight: what was sent and not yet acknowledged, against what may be. The sender chooses and encodes a page only
 * when there is credit for it, so that nothing grows stale in a queue of the transport, which bounds messages and not bytes.
 *
 * Invariants: `inFlight` is never negative, and never above the window, unless that was made smaller meanwhile or one
 * message is larger than all of it (it goes alone). Whoever waited longest is served first.
 */
import { MigrationFault } from "../fault.ts";

interface Waiter {
  readonly bytes: number;
  readonly admit: () => void;
}

export class CreditWindow {
  private windowBytes: number;
  private usedBytes = 0;
  private readonly waiters: Waiter[] = [];

  constructor(windowBytes: number) {
    this.windowBytes = checked(windowBytes, 1);
  }

  get inFlight(): number {
    return this.usedBytes;
  }

  /** Bytes that may be sent now. */
  get available(): number {
    return Math.max(0, this.windowBytes - this.usedBytes);
  }

  /** Takes credit for a message. @returns false, and nothing is taken, when there is not enough or others wait for it */
  take(bytes: number): boolean {
    checked(bytes, 0);
    if (this.waiters.length > 0 || !this.fits(bytes)) return false;
    this.usedBytes += bytes;
    return true;
  }

  /** As take(), but waits for its turn. @throws MigrationFault the signal's reason, with nothing taken */
  async waitFor(bytes: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw MigrationFault.from(signal.reason);
    if (this.take(bytes)) return;
    await new Promise<void>((resolve, reject) => {
      const onAbort = (): void => {
        this.waiters.splice(this.waiters.indexOf(waiter), 1);
        reject(MigrationFault.from(signal.reason));
        this.admit();
      };
      const waiter: Waiter = {
        bytes,
        admit: () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      this.waiters.push(waiter);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** The peer acknowledged. @throws MigrationFault `peer-invalid` when that is more than is in flight */
  release(bytes: number): void {
    if (checked(bytes, 0) > this.usedBytes)
      throw new MigrationFault("peer-invalid", `The peer acknowledged ${bytes} bytes of ${this.usedBytes} in flight`);
    this.usedBytes -= bytes;
    this.admit();
  }

  /** A smaller window takes effect as acknowledgements come. */
  resize(windowBytes: number): void {
    this.windowBytes = checked(windowBytes, 1);
    this.admit();
  }

  private fits(bytes: number): boolean {
    return this.usedBytes + bytes <= this.windowBytes || this.usedBytes === 0;
  }

  private admit(): void {
    for (let first = this.waiters[0]; first !== undefined && this.fits(first.bytes); first = this.waiters[0]) {
      this.waiters.shift();
      this.usedBytes += first.bytes;
      first.admit();
    }
  }
}

function checked(bytes: number, least: number): number {
  if (!Number.isSafeInteger(bytes) || bytes < least) throw new RangeError(`${bytes} bytes`);
  return bytes;
}
