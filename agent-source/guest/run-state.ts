/**
 * Tells by QEMU's events whether the guest stands still: for pacing, for the switch policy, and for the time of the
 * stop. Whether the guest is granted running or paused does not depend on these events: a STOP that was sent shortly
 * before the acknowledgement may come after the acknowledgement, and QEMU's own switchover sends a STOP like any other.
 * Only the stream tells these stops apart (shared/qemu/stream/global-state.ts,
 * docs/design/switchover.md#a-paused-guest).
 */
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { QmpEvent } from "../../shared/qemu/qmp/qmp-types.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";

export class RunState {
  private still: boolean;
  /** Resolves with the time of the present stop, or of the next stop, microseconds since the epoch. */
  private stop: Deferred<number> = deferred();
  private stopSeen = false;

  private constructor(still: boolean) {
    this.still = still;
  }

  /** Asks QEMU whether the guest runs, and follows QEMU's events from then on. @throws MigrationFault "qmp-…" */
  static async begin(qmp: QmpClient): Promise<RunState> {
    const seen: QmpEvent[] = [];
    // subscribed first, so that no event is missed. The answer is newer than the events that come before it, and the
    // last of them says the same as the answer
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

  /**
   * Resolves once a STOP has come that no RESUME has followed, with the time of this STOP, microseconds since the
   * epoch.
   */
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
      // a promise that has not resolved stays: it is for the stop that follows this RESUME
      if (this.stopSeen) this.stop = deferred();
      this.stopSeen = false;
    }
  }
}
