/** Lines about callers that were refused: each, while they are few; anybody who can connect can cause them. */
import type { MigrationFault } from "../fault.ts";
import type { Logger } from "../runtime/log.ts";

const LINES_MAX = 20;
const WITHIN_MS = 60_000;

export class RefusalLog {
  private readonly log: Logger | undefined;
  private lines = 0;
  private unsaid = 0;
  private sinceMs = 0;

  constructor(log: Logger | undefined) {
    this.log = log;
  }

  /** @param peer its address; @param path of the method that was called */
  add(fault: MigrationFault, peer: string, path?: string): void {
    const nowMs = performance.now();
    if (nowMs - this.sinceMs > WITHIN_MS) {
      if (this.unsaid > 0) this.log?.warn({ refusals: this.unsaid }, "callers were refused without a line for each");
      this.sinceMs = nowMs;
      this.lines = 0;
      this.unsaid = 0;
    }
    if (this.lines >= LINES_MAX) {
      this.unsaid++;
      return;
    }
    this.lines++;
    this.log?.warn({ peer, ...(path === undefined ? {} : { call: path }), code: fault.code, fault }, "caller refused");
  }
}
