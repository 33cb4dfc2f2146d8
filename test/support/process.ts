/** Starts programs for a test, keeps their output, and ends them, so that no trace of them is left. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { Socket } from "node:net";
import { promisify } from "node:util";
import { bounded, eventually } from "./bounded.ts";
import { atTeardown } from "./teardown.ts";

const execFileAsync = promisify(execFile);
/** How much of a program's output is kept, characters: enough to see why something failed. */
const OUTPUT_MAX = 1 << 20;
/** How long the rest of the output is waited for after the end of a program, milliseconds. */
const OUTPUT_GRACE_MS = 200;
/** How long a program may take to end when it is asked to, milliseconds, if it is promised no other time. */
const STOPS_WITHIN_MS = 20_000;
/** How long a program may take to end after SIGKILL, milliseconds: the kernel has to take its memory back. */
const DIES_WITHIN_MS = 20_000;
/** How long another program, such as systemd, may take to start the process that `standsFor` finds, milliseconds. */
const BEGINS_WITHIN_MS = 60_000;

export interface ProcessEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ProcessOptions {
  readonly name: string;
  readonly command: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly folder?: string;
  /** The time that the program is promised between SIGTERM and SIGKILL, milliseconds. @default 20_000 */
  readonly graceMs?: number;
  /** Finds the process of the program, if another program such as systemd starts it for `command`. */
  readonly standsFor?: () => number | undefined;
}

interface LineWaiter {
  readonly pattern: RegExp;
  readonly found: (match: RegExpMatchArray) => void;
  readonly failed: (why: Error) => void;
}

/** A running program. What it writes to standard output and standard error is kept, in the order in which it comes. */
export class RigProcess {
  readonly name: string;
  /** Settles when the program has ended and its output was read. */
  readonly ended: Promise<ProcessEnd>;
  readonly #child: ChildProcess;
  readonly #graceMs: number;
  readonly #waiters = new Set<LineWaiter>();
  #pid: number;
  #output = "";
  #end: ProcessEnd | undefined;

  /** @throws Error when the program cannot be started */
  static async start(options: ProcessOptions): Promise<RigProcess> {
    const [program, ...rest] = options.command;
    if (program === undefined) throw new RangeError("a command needs a program");
    const child = spawn(program, rest, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...options.environment },
      ...(options.folder === undefined ? {} : { cwd: options.folder }),
    });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", reject);
    });
    const started = new RigProcess(options.name, child, options.graceMs ?? STOPS_WITHIN_MS);
    const { standsFor } = options;
    if (standsFor !== undefined) {
      const find = (): number | undefined => standsFor() ?? (started.running ? undefined : started.pid);
      started.#pid = await eventually(find, { timeoutMs: BEGINS_WITHIN_MS, what: `the process of ${options.name}` });
    }
    return started;
  }

  private constructor(name: string, child: ChildProcess, graceMs: number) {
    this.name = name;
    this.#graceMs = graceMs;
    this.#pid = child.pid!;
    this.#child = child;
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.setEncoding("utf8");
      stream.on("data", (text: string) => this.#read(text));
    }
    const forget = atTeardown(() => child.kill("SIGKILL"));
    this.ended = new Promise((resolve) => {
      child.once("exit", async (code, signal) => {
        forget();
        await outputClosed(child);
        this.#end = { code, signal };
        for (const waiter of this.#waiters) waiter.failed(new Error(`${name} ended: ${this.#describeEnd()}`));
        this.#waiters.clear();
        resolve(this.#end);
      });
    });
  }

  get pid(): number {
    return this.#pid;
  }

  /** How the program ended; undefined while it runs. */
  get end(): ProcessEnd | undefined {
    return this.#end;
  }

  get running(): boolean {
    return this.#end === undefined;
  }

  /** The last OUTPUT_MAX characters that the program wrote. */
  output(): string {
    return this.#output;
  }

  /**
   * Waits for a match in what the program has written or will write. The pattern is tried on the whole output, so `^`
   * needs the flag m.
   * @throws Error after `timeoutMs`, or when the program ends first; both with the program's output
   */
  async waitForOutput(pattern: RegExp, { timeoutMs }: { timeoutMs: number }): Promise<RegExpMatchArray> {
    const already = this.#output.match(pattern);
    if (already !== null) return already;
    if (this.#end !== undefined) throw new Error(`${this.name} ended: ${this.#describeEnd()}`);
    let waiter: LineWaiter | undefined;
    const found = new Promise<RegExpMatchArray>((resolve, reject) => {
      waiter = { pattern, found: resolve, failed: reject };
      this.#waiters.add(waiter);
    });
    try {
      return await bounded(found, timeoutMs, `${pattern} from ${this.name}, which wrote: ${this.#output.slice(-2000)}`);
    } finally {
      if (waiter !== undefined) this.#waiters.delete(waiter);
    }
  }

  signal(signal: NodeJS.Signals): void {
    if (this.running) this.#send(signal);
  }

  /**
   * Asks the program to end, and kills it when it is still there after `graceMs`.
   * @param graceMs milliseconds. @default what the program was promised at its start
   */
  async stop({ graceMs = this.#graceMs }: { graceMs?: number } = {}): Promise<ProcessEnd> {
    if (this.#end !== undefined) return this.#end;
    this.#send("SIGTERM");
    const force = setTimeout(() => this.#send("SIGKILL"), graceMs);
    try {
      return await bounded(this.ended, graceMs + DIES_WITHIN_MS, `the end of ${this.name} (process ${this.pid})`);
    } finally {
      clearTimeout(force);
    }
  }

  #send(signal: NodeJS.Signals): void {
    if (this.#pid === this.#child.pid) this.#child.kill(signal);
    else
      try {
        process.kill(this.#pid, signal);
      } catch {
        // the process has ended already
      }
  }

  #read(text: string): void {
    this.#output = (this.#output + text).slice(-OUTPUT_MAX);
    for (const waiter of this.#waiters) {
      const match = this.#output.match(waiter.pattern);
      if (match === null) continue;
      this.#waiters.delete(waiter);
      waiter.found(match);
    }
  }

  #describeEnd(): string {
    const how = this.#end?.signal ?? `status ${this.#end?.code}`;
    return `${how}; it wrote: ${this.#output.slice(-2000)}`;
  }
}

/**
 * Waits for the rest of a program's output, but not for programs that it has started and that still have its output
 * open.
 */
async function outputClosed(child: ChildProcess): Promise<void> {
  await new Promise<void>((resolve) => {
    const enough = setTimeout(resolve, OUTPUT_GRACE_MS);
    child.once("close", () => {
      clearTimeout(enough);
      resolve();
    });
  });
  for (const stream of [child.stdout, child.stderr]) if (stream instanceof Socket) stream.unref();
}

/**
 * Runs a command to its end, for at most `timeoutMs`.
 * @returns what it wrote to standard output
 * @throws Error with its standard error when it fails
 */
export async function run(command: readonly string[], { timeoutMs = 30_000 } = {}): Promise<string> {
  const [program, ...rest] = command;
  if (program === undefined) throw new RangeError("a command needs a program");
  const { stdout } = await execFileAsync(program, rest, { timeout: timeoutMs, maxBuffer: 64 << 20 });
  return stdout;
}
