/** Runs an agent's warm-up after the start, for as long as the agent has nothing else to do. */
import { MigrationFault } from "../../fault.ts";
import { systemClock } from "../clock.ts";
import type { Logger } from "../log/log.ts";

export class WarmUpRunner {
  private readonly abort = new AbortController();
  private ended: Promise<void> = Promise.resolve();

  /**
   * Begins the warm-up.
   * @param rehearse the warm-up. It ends early when its signal is aborted; if it throws, the only loss is speed
   */
  begin(log: Logger, rehearse: (signal: AbortSignal) => Promise<void>): void {
    const beganMs = systemClock.monotonicMs();
    this.ended = rehearse(this.abort.signal).then(
      () => log.info({ seconds: (systemClock.monotonicMs() - beganMs) / 1000 }, "the warm-up is done"),
      (thrown: unknown) => {
        if (this.abort.signal.aborted) log.info("the warm-up ended early");
        else
          log.warn({ fault: MigrationFault.from(thrown) }, "the warm-up failed: the first migrations will be slower");
      },
    );
  }

  /** Ends the warm-up, since a migration begins or the agent stops. Resolves when nothing of the warm-up is left. */
  end(): Promise<void> {
    this.abort.abort(
      new MigrationFault("cancelled", "The warm-up ended because a migration begins or the agent stops"),
    );
    return this.ended;
  }
}
