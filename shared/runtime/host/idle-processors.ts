/**
 * Tells how many of this host's processors had nothing to do lately, by the kernel's counters (/proc/stat, proc(5)).
 * The figure is a hint: it may be unreadable. Only idle time counts: a processor that waits for a disk is not idle, nor
 * is a processor that the hardware gives to another virtual machine.
 */
import { closeSync, openSync, readSync } from "node:fs";

/** How many bytes of the file are read. Only its first line is wanted, some 100 bytes of a file of kilobytes. */
const LINE_BYTES = 512;
/**
 * How many fields are summed: user, nice, system, idle, iowait, irq, softirq and steal. Time of guests is part of user.
 */
const FIELDS = 8;
/** Index of the field idle. */
const IDLE = 3;
/**
 * The shortest window that tells something, in ticks of 10 ms of all processors together. In a window of seven ticks
 * one or two are idle by chance, so each look finds another figure, and a level of compression that is chosen by the
 * figure is wrong half of the time (docs/design/compression.md#idle-processors).
 */
const WINDOW_TICKS = 40;

export class IdleProcessors {
  private readonly line = Buffer.alloc(LINE_BYTES);
  private readonly processors: number;
  private readonly path: string;
  /** The counters as they were read last. */
  private ticks = 0;
  private idleTicks = 0;
  /** The counters at the beginning of the window. */
  private ticksBefore = 0;
  private idleTicksBefore = 0;
  /** Idle processors in the last whole window; 0 before the first window has passed. */
  private idle = 0;

  /** @param processors how many the host has; @param path for tests */
  constructor(processors: number, path = "/proc/stat") {
    this.processors = processors;
    this.path = path;
    if (this.read()) this.beginWindow();
  }

  /**
   * Tells how many processors were idle in the last whole window, which has at least 0.4 processor seconds.
   * @returns from 0 to the number of processors; undefined where the counters cannot be read
   */
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

  /** Reads the counters. @returns false where they cannot be read */
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
