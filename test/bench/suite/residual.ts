/** Records how much of a guest was left to send over the time of its migration. */
import type { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";

export interface ResidualPoint {
  readonly seconds: number;
  /**
   * What was left: for QEMU the pages that it has to send, whole; for Ferry its estimate of what will go over the link.
   */
  readonly bytes: number;
  /** How many bytes Ferry had sent by then. */
  readonly sentBytes?: number;
  /** How many pages Ferry had in each heat class, the coldest first. */
  readonly heat?: readonly number[];
}

const EVERY_MS = 100;

/** Asks a migrating QEMU repeatedly, from start() to end(). */
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
      // the monitor closes when its QEMU ends, which is as soon as the QEMU is not needed
      const answer = await source.execute("query-migrate").catch(() => undefined);
      if (answer === undefined) return;
      const bytes = answer.ram?.remaining;
      if (bytes !== undefined) this.points.push({ seconds: (performance.now() - start) / 1e3, bytes });
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    }
  }
}

/** Reads the points from the lines that `ferry --json migrate` wrote. */
export function residualOf(output: string): readonly ResidualPoint[] {
  return output.split("\n").flatMap((line) => {
    if (!line.startsWith("{")) return [];
    const { status, progress } = JSON.parse(line);
    if (progress === undefined || (status !== "copying" && status !== "switching" && status !== "serving")) return [];
    const { elapsedSeconds, estimatedResidualBytes, heatClasses, bytesSent } = progress;
    return [{ seconds: elapsedSeconds, bytes: estimatedResidualBytes, heat: heatClasses, sentBytes: bytesSent }];
  });
}
