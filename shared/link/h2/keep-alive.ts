/**
 * Finds out that a peer is gone, as grpc-js's keep-alive does: the peer is asked for a sign of life at intervals, and
 * is lost when none has come for as long again. Whatever comes is a sign of life, since the answer to a question stands
 * behind the pages that are on their way already.
 */
import type { Clock, Timer } from "../../runtime/clock.ts";

interface KeepAliveOptions {
  readonly clock: Clock;
  readonly everyMs: number;
  /** Asks the peer. */
  readonly ask: () => void;
  /** Called once, when the peer is lost. */
  readonly onLost: () => void;
}

export class KeepAlive {
  private readonly options: KeepAliveOptions;
  private heard = false;
  private timer: Timer | undefined;
  private stopped = false;

  constructor(options: KeepAliveOptions) {
    this.options = options;
  }

  start(): void {
    this.wait(() => this.ask());
  }

  stop(): void {
    this.stopped = true;
    this.options.clock.cancel(this.timer);
  }

  /** Notes that something has come. */
  note(): void {
    this.heard = true;
  }

  private ask(): void {
    this.heard = false;
    this.options.ask();
    // what came while this process was held up is read only after the timers
    this.wait(() => setImmediate(() => this.judge()));
  }

  private judge(): void {
    if (this.stopped) return;
    if (this.heard) this.ask();
    else this.options.onLost();
  }

  private wait(then: () => void): void {
    const { clock, everyMs } = this.options;
    if (this.stopped) return;
    this.timer = clock.after(everyMs, then);
    this.timer.unref();
  }
}
