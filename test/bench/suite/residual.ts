/** How much of a guest was left to send, over the time of its migration. */
import type { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";

export interface ResidualPoint {
  readonly seconds: number;
  /** QEMU: pages that it has to send, whole; Ferry: what it estimates that will go over the link. */
  readonly bytes: number;
  /** By Ferry, so far. */
  readonly sentBytes?: number;
  /** Ferry's pages in each heat class, coldest first. */
  readonly heat?: readonly number[];
}

const EVERY_MS = 100;

/** Asks a QEMU that migrates until told to end. */
export class ResidualPoll {
  private readonly points: ResidualPoint[] = [];
  private ended = false;
  private running: Promise<void> = Promise.resolve();

  readonly start = (source: QmpClient): void => {
    this.running = this.poll(source);
  };

  async end(): Promise<readonly ResidualPoint[]> {
    this.ended = true;
    await this.running;
    return this.points;
  }

  private async poll(source: QmpClient): Promise<void> {
    const start = performance.now();
    while (!this.ended) {
      // the monitor goes with its QEMU, which ends as soon as it is not needed
      const answer = await source.execute("query-migrate").catch(() => undefined);
      if (answer === undefined) return;
      const bytes = answer.ram?.remaining;
      if (bytes !== undefined) this.points.push({ seconds: (performance.now() - start) / 1e3, bytes });
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    }
  }
}

/** From the lines that `ferry --json migrate` wrote. */
export function residualOf(output: string): readonly ResidualPoint[] {
  return output.split("\n").flatMap((line) => {
    if (!line.startsWith("{")) return [];
    const { status, progress } = JSON.parse(line);
    if (progress === undefined || (status !== "copying" && status !== "switching" && status !== "serving")) return [];
    const { elapsedSeconds, estimatedResidualBytes, heatClasses, bytesSent } = progress;
    return [{ seconds: elapsedSeconds, bytes: estimatedResidualBytes, heat: heatClasses, sentBytes: bytesSent }];
  });
}
