/**
 * Follows a guest's serial console, which its QEMU writes to a file. The console has the heartbeats of
 * test/support/guest/workload.c and what the guest has found corrupt; the heartbeats tell how long the guest stood
 * still.
 */
import { closeSync, type FSWatcher, fstatSync, openSync, readSync, watch } from "node:fs";
import { bounded } from "./bounded.ts";

/** How often the file is looked at, milliseconds, beside the watch of the file, which misses some writes. */
const POLL_MS = 50;
const CHUNK_BYTES = 64 << 10;

export interface Beat {
  readonly beat: number;
  /** The guest's clocks, microseconds. They stand still while QEMU has the guest stopped. */
  readonly monoUs: number;
  readonly wallUs: number;
  /** The longest time between two turns of the workload's loop since the last beat, by the guest's clock. */
  readonly longestGapUs: number;
  /** How many pages were dirtied so far. */
  readonly pages: number;
  /** How many words were found wrong so far. */
  readonly errors: number;
  /** How many bytes were dirtied a second since the last beat. */
  readonly rate: number;
  readonly wordsChecked: number;
  /** How many commands the guest's application has done; 0 if it has none. */
  readonly appCommands: number;
  /** What the guest has done with its disk; undefined if it writes to none. */
  readonly disk?: DiskBeat | undefined;
  /** When this program saw the beat, milliseconds of this program's clock (performance.now). */
  readonly seenAtMs: number;
}

/** What the guest has done with its disk so far (test/support/guest/disk.h). */
export interface DiskBeat {
  /** All writes with a number below this one are done; disk-image.ts says to which block each write went. */
  readonly written: number;
  /** How many blocks the guest has read and compared. */
  readonly checked: number;
  /** How many of the checked blocks did not hold what the guest had written. */
  readonly wrong: number;
  /** How many reads and writes the disk has answered with an error. */
  readonly failed: number;
}

/** What one QEMU wrote. The rest of its first line and of its last line may be in what other QEMUs wrote. */
interface Segment {
  readonly lines: string[];
  readonly beats: Beat[];
  /** The text before the first end of line. */
  head: { readonly text: string; readonly seenAtMs: number } | undefined;
  /** The text after the last end of line. */
  tail: string;
}

interface Waiter {
  readonly test: () => boolean;
  readonly found: () => void;
}

const BEAT =
  /^FERRY beat=(\d+) mono_us=(\d+) wall_us=(\d+) maxgap_us=(\d+) pages=(\d+) errors=(\d+) rate=(\d+) checked=(\d+)(?: app=(\d+))?(?: disk=(\d+),(\d+),(\d+),(\d+))?$/;

/** Parses a line of the console. @returns undefined if the line is no whole heartbeat */
export function parseBeat(line: string, seenAtMs: number): Beat | undefined {
  const match = BEAT.exec(line);
  if (match === null) return undefined;
  const [beat, monoUs, wallUs, longestGapUs, pages, errors, rate, wordsChecked, app, ...disk] = match
    .slice(1)
    .map(Number);
  const [written, checked, wrong, failed] = disk;
  return {
    beat: beat!,
    monoUs: monoUs!,
    wallUs: wallUs!,
    longestGapUs: longestGapUs!,
    pages: pages!,
    errors: errors!,
    rate: rate!,
    wordsChecked: wordsChecked!,
    appCommands: match[9] === undefined ? 0 : app!,
    disk:
      match[10] === undefined ? undefined : { written: written!, checked: checked!, wrong: wrong!, failed: failed! },
    seenAtMs,
  };
}

/**
 * Follows the console of one guest on one host. A later QEMU of the guest on that host empties the file; what was read
 * before stays here as an earlier segment.
 */
export class SerialLog {
  readonly path: string;
  readonly #file: number;
  readonly #watch: FSWatcher;
  readonly #poll: NodeJS.Timeout;
  readonly #chunk = Buffer.alloc(CHUNK_BYTES);
  readonly #segments: Segment[] = [newSegment()];
  readonly #waiters = new Set<Waiter>();
  #offset = 0;

  /** Begins to follow the file, and makes it if it is not there yet. */
  constructor(path: string) {
    this.path = path;
    this.#file = openSync(path, "a+");
    this.#watch = watch(path, () => this.#read());
    this.#poll = setInterval(() => this.#read(), POLL_MS);
    this.#poll.unref();
    this.#watch.unref();
    this.#read();
  }

  /** Reads everything that was written so far. */
  catchUp(): void {
    this.#read();
  }

  beats(): readonly Beat[] {
    return this.#segments.flatMap((segment) => segment.beats);
  }

  lastBeat(): Beat | undefined {
    return this.#segments.findLast((segment) => segment.beats.length > 0)?.beats.at(-1);
  }

  lines(): readonly string[] {
    return this.#segments.flatMap((segment) => segment.lines);
  }

  /** The workload's reports of wrong memory, of wrong blocks and of errors of its disk, and the kernel's of its end. */
  corruptions(): readonly string[] {
    return this.lines().filter((line) =>
      /FERRY CORRUPT|FERRY DISK|FERRY no disk|FERRY workload ended|Kernel panic|Oops|BUG:/.test(line),
    );
  }

  /** @internal for longestPause */
  segments(): readonly Segment[] {
    return this.#segments;
  }

  /**
   * Waits for a beat that fits. Beats that were already seen count too, unless `fresh` is true.
   * @returns the first beat that fits
   * @throws Error with the last lines of the console, after `timeoutMs`
   */
  async waitForBeat(
    fits: (beat: Beat) => boolean,
    { timeoutMs, fresh = false }: { timeoutMs: number; fresh?: boolean },
  ): Promise<Beat> {
    let next = fresh ? this.beats().length : 0;
    let found: Beat | undefined;
    await this.#waitUntil(() => {
      const beats = this.beats();
      while (found === undefined && next < beats.length) {
        const beat = beats[next++]!;
        if (fits(beat)) found = beat;
      }
      return found !== undefined;
    }, timeoutMs);
    return found!;
  }

  /**
   * Waits for `count` beats from now on. They show that the guest runs here.
   * @returns the last of these beats
   */
  async waitForBeats(count: number, { timeoutMs }: { timeoutMs: number }): Promise<Beat> {
    const before = this.beats().length;
    await this.#waitUntil(() => this.beats().length >= before + count, timeoutMs);
    return this.lastBeat()!;
  }

  close(): void {
    clearInterval(this.#poll);
    this.#watch.close();
    closeSync(this.#file);
  }

  async #waitUntil(test: () => boolean, timeoutMs: number): Promise<void> {
    if (test()) return;
    let waiter: Waiter | undefined;
    const found = new Promise<void>((resolve) => {
      waiter = { test, found: resolve };
      this.#waiters.add(waiter);
    });
    try {
      await bounded(found, timeoutMs, `the guest's beat in ${this.path}`);
    } catch (thrown) {
      const last = this.lines().slice(-5).join("\n");
      throw new Error(`${thrown instanceof Error ? thrown.message : thrown}; its last lines:\n${last}`);
    } finally {
      if (waiter !== undefined) this.#waiters.delete(waiter);
    }
  }

  #read(): void {
    if (fstatSync(this.#file).size < this.#offset) {
      this.#offset = 0;
      this.#segments.push(newSegment());
    }
    const seenAtMs = performance.now();
    for (;;) {
      const length = readSync(this.#file, this.#chunk, 0, CHUNK_BYTES, this.#offset);
      if (length === 0) break;
      this.#offset += length;
      take(this.#segments.at(-1)!, this.#chunk.toString("latin1", 0, length), seenAtMs);
    }
    for (const waiter of this.#waiters)
      if (waiter.test()) {
        this.#waiters.delete(waiter);
        waiter.found();
      }
  }
}

export interface Pause {
  /**
   * The longest time between two heartbeats as this program saw them. It is real time, so it includes stops of the
   * guest.
   */
  readonly seenMs: number;
  /**
   * The longest time between two heartbeats by each of the guest's two clocks. QEMU stops these clocks with the guest,
   * so they show only stalls of a running guest.
   */
  readonly monoMs: number;
  readonly wallMs: number;
  /** The longest time between two turns of the workload's loop, by the guest's clock. */
  readonly loopMs: number;
}

/**
 * Finds how long the guest stood still, over all the hosts where it was. All figures but the last include the time
 * between two heartbeats (50 ms unless the workload says otherwise). `seenMs` also includes the time that this program
 * took to see the heartbeats.
 */
export function longestPause(...logs: readonly SerialLog[]): Pause {
  const beats = joinedBeats(logs);
  let [seenMs, monoMs, wallMs, loopMs] = [0, 0, 0, 0];
  beats.forEach((beat, index) => {
    loopMs = Math.max(loopMs, beat.longestGapUs / 1e3);
    const before = beats[index - 1];
    if (before === undefined) return;
    seenMs = Math.max(seenMs, beat.seenAtMs - before.seenAtMs);
    monoMs = Math.max(monoMs, (beat.monoUs - before.monoUs) / 1e3);
    wallMs = Math.max(wallMs, (beat.wallUs - before.wallUs) / 1e3);
  });
  return { seenMs, monoMs, wallMs, loopMs };
}

/**
 * Joins the beats of a guest from several hosts in their order. Beats whose line was begun on one host and ended on the
 * next are put together.
 */
export function joinedBeats(logs: readonly SerialLog[]): readonly Beat[] {
  const segments = logs.flatMap((log) => log.segments()).filter((segment) => segment.beats.length > 0);
  segments.sort((one, other) => one.beats[0]!.beat - other.beats[0]!.beat);
  const beats: Beat[] = [];
  segments.forEach((segment, index) => {
    const tail = segments[index - 1]?.tail;
    if (tail !== undefined && segment.head !== undefined) {
      const split = parseBeat(tail + segment.head.text, segment.head.seenAtMs);
      if (split !== undefined) beats.push(split);
    }
    beats.push(...segment.beats);
  });
  return beats;
}

function newSegment(): Segment {
  return { lines: [], beats: [], head: undefined, tail: "" };
}

function take(segment: Segment, text: string, seenAtMs: number): void {
  const parts = (segment.tail + text).split("\n");
  segment.tail = parts.pop()!;
  for (const part of parts) {
    const line = part.replace(/\r$/, "");
    segment.head ??= { text: line, seenAtMs };
    segment.lines.push(line);
    const beat = parseBeat(line, seenAtMs);
    if (beat !== undefined) segment.beats.push(beat);
  }
}
