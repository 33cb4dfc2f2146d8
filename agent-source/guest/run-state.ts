/**
 * Whether the guest stands still, as QEMU's events tell: for pacing, for the policy and for the time of its stop. Not for what
 * is granted: a STOP that was sent shortly before the acknowledgement may come after it, and QEMU's own switchover sends one
 * like any other. That is told apart by the stream (shared/qemu/stream/global-state.ts).
 */
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { QmpEvent } from "../../shared/qemu/qmp/qmp-types.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";

export class RunState {
  private still: boolean;
  /** When it was stopped, as far as that was seen. */
  private stop: Deferred<number> = deferred();
  private stopSeen = false;

  private constructor(still: boolean) {
    this.still = still;
  }

  /** @throws MigrationFault "qmp-…" */
  static async begin(qmp: QmpClient): Promise<RunState> {
    const seen: QmpEvent[] = [];
    // first, so that no event is missed; one that comes before the answer tells nothing else than it
    const early = qmp.subscribe((event) => seen.push(event));
    try {
      const { status } = await qmp.execute("query-status");
      const watch = new RunState(status !== "running");
      for (const event of seen) watch.take(event);
      qmp.subscribe((event) => watch.take(event));
      return watch;
    } finally {
      early();
    }
  }

  get standsStill(): boolean {
    return this.still;
  }

  /** Resolves with the time of the STOP, microseconds since the epoch, as soon as one was seen that no RESUME followed. */
  get stopped(): Promise<number> {
    return this.stop.promise;
  }

  private take({ event, timestampUs }: QmpEvent): void {
    if (event === "STOP") {
      this.still = true;
      this.stopSeen = true;
      this.stop.resolve(timestampUs);
    } else if (event === "RESUME") {
      this.still = false;
      // of whoever waits for a stop that has not come, the one behind this is meant
      if (this.stopSeen) this.stop = deferred();
      this.stopSeen = false;
    }
  }
}
