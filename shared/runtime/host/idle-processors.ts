/**
 * How many of this host's processors had nothing to do lately, from the kernel's counters (/proc/stat, proc(5)). A hint: it may be
 * unreadable. Idle is what is idle only: a processor that waits for a disk, or that another machine of the same host has, is not.
 */
import { closeSync, openSync, readSync } from "node:fs";

/** The first line is all that is wanted: some 100 bytes of what is kilobytes on a large host. */
const LINE_BYTES = 512;
/** Of user, nice, system, idle, iowait, irq, softirq and steal; a guest's time is in user's. */
const FIELDS = 8;
const IDLE = 3;
/**
 * Ticks of 10 ms of all processors together that tell something: what one in seven says changes with each look, and a level of
 * compression that follows it is wrong half of the time.
 */
const WINDOW_TICKS = 40;

export class IdleProcessors {
  private readonly line = Buffer.alloc(LINE_BYTES);
  private readonly processors: number;
  private readonly path: string;
  private ticks = 0;
  private idleTicks = 0;
  /** Where the window began. */
  private ticksBefore = 0;
  private idleTicksBefore = 0;
  /** In the last whole window; none is counted on before the first has passed. */
  private idle = 0;

  /** @param processors of the host */
  constructor(processors: number, path = "/proc/stat") {
    this.processors = processors;
    this.path = path;
    if (this.read()) this.beginWindow();
  }

  /** In the last 0.4 processor seconds or more, 0 to the number of processors; undefined where it cannot be told. */
  lately(): number | undefined {
    if (!this.read()) return undefined;
    const ticks = this.ticks - this.ticksBefore;
    if (ticks < WINDOW_TICKS) return this.idle;
    this.idle = Math.max(0, (this.processors * (this.idleTicks - this.idleTicksBefore)) / ticks);
    this.beginWindow();
    return this.idle;
  }

  private beginWindow(): void {
    this.ticksBefore = this.ticks;
    this.idleTicksBefore = this.idleTicks;
  }

  private read(): boolean {
    const [name, ...times] = this.firstLine().split(/ +/);
    if (name !== "cpu" || times.length < FIELDS) return false;
    this.ticks = times.slice(0, FIELDS).reduce((sum, ticks) => sum + Number(ticks), 0);
    this.idleTicks = Number(times[IDLE]);
    return Number.isFinite(this.ticks);
  }

  private firstLine(): string {
    try {
      const file = openSync(this.path, "r");
      try {
        const length = readSync(file, this.line, 0, LINE_BYTES, 0);
        return this.line.toString("latin1", 0, length).split("\n", 1)[0] ?? "";
      } finally {
        closeSync(file);
      }
    } catch {
      return "";
    }
  }
}
