/**
 * One life of both halves of bench:path, of one checkout: the processes are started, carry migrations one after the
 * other, and end. Between them and beside them run a process that writes like the source's QEMU (feeder.c) and one that
 * reads like the destination's (player.c).
 */
import { type ChildProcess, execFileSync, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { packageRoot } from "../../../shared/runtime/package-root.ts";
import { PAGE_SIZE } from "../../../shared/units.ts";
import type * as Agents from "../../support/agents.ts";
import type { Begun, DestinationOrder, Ended, SourceOrder, Task, Usage } from "./messages.ts";
import type { StreamFile } from "./stream.ts";

/** What one migration took, in each of the four processes. */
export interface Migrated {
  readonly source: Usage;
  readonly destination: Usage;
  readonly feeder: Usage;
  readonly player: Usage;
  /** What both halves took after the migration to give memory back, CPU seconds. */
  readonly afterSeconds: number;
  /** From the start of the feeder until the player has everything. */
  readonly seconds: number;
  readonly wireBytes: number;
  /** The guest pages that were moved, bytes: all passes, the first one included. */
  readonly guestBytes: number;
}

/** What all lives of a run share. */
export interface Bench {
  /** A folder with `feeder` and `player`, and certificates in `tls`. */
  readonly folder: string;
  readonly passes: number;
}

/** Compiles the two programs in C. */
export function compilePlayers(folder: string): void {
  const here = join(packageRoot(), "test", "bench");
  for (const [name, file] of [
    ["feeder", "feeder.c"],
    ["player", "path/player.c"],
  ] as const)
    execFileSync("gcc", ["-O2", "-o", join(folder, name), join(here, file)], { stdio: "inherit" });
}

export class Life {
  private readonly bench: Bench;
  private readonly folder: string;
  private readonly source: ChildProcess;
  private readonly destination: ChildProcess;
  private count = 0;

  private constructor(bench: Bench, folder: string, source: ChildProcess, destination: ChildProcess) {
    this.bench = bench;
    this.folder = folder;
    this.source = source;
    this.destination = destination;
  }

  /** Starts both halves. @param root the root of the checkout, which is built */
  static async start(root: string, bench: Bench, task: Task): Promise<Life> {
    const agents: Pick<typeof Agents, "NODE_ENVIRONMENT" | "NODE_OPTIONS"> = await import(
      pathToFileURL(join(root, "dist/test/support/agents.js")).href
    );
    const half = (name: string): ChildProcess =>
      fork(join(root, "dist/test/bench/path", name), [JSON.stringify(task)], {
        // vm.measureMemory is an experiment of Node
        execArgv: [...agents.NODE_OPTIONS, "--disable-warning=ExperimentalWarning"],
        env: { ...process.env, ...agents.NODE_ENVIRONMENT },
      });
    return new Life(bench, mkdtempSync(join(bench.folder, "life-")), half("source.js"), half("destination.js"));
  }

  async migrate(stream: StreamFile): Promise<Migrated> {
    const [streamPath, playerPath] = [`${this.folder}/${this.count}.stream`, `${this.folder}/${this.count}.player`];
    this.count++;
    const order: SourceOrder = { streamPath };
    const begun = this.answer<Begun>(this.source);
    this.source.send(order);
    const { address } = await begun;
    const player = this.play("player", [playerPath, `${stream.pages}`], "ignore");
    await player.spoke;
    const input = openSync(stream.path, "r");
    const pieces = stream.lengths.map((length) => `${length}`);
    const feeder = this.play("feeder", [streamPath, ...pieces, `${this.bench.passes}`], input);
    closeSync(input);
    const ended = Promise.all([this.answer<Ended>(this.source), this.answer<Ended>(this.destination)]);
    const pull: DestinationOrder = { address, playerPath };
    const beganMs = performance.now();
    this.destination.send(pull);
    const played = await player.used;
    const seconds = (performance.now() - beganMs) / 1000;
    const [source, destination] = await ended;
    return {
      source: source.usage,
      destination: destination.usage,
      feeder: await feeder.used,
      player: played,
      afterSeconds: sum(source.after) + sum(destination.after),
      seconds,
      wireBytes: source.wireBytes,
      guestBytes: stream.pages * PAGE_SIZE * this.bench.passes,
    };
  }

  async end(): Promise<void> {
    const gone = [this.source, this.destination].map((one) => once(one, "exit"));
    for (const one of [this.source, this.destination]) one.disconnect();
    await Promise.all(gone);
  }

  /**
   * Starts one of the programs in C.
   * @returns when it has said its first word, and what it says at its end that it has used
   */
  private play(name: string, args: readonly string[], input: number | "ignore") {
    const program = spawn(join(this.bench.folder, name), args, { stdio: [input, "pipe", "inherit"] });
    let text = "";
    const { stdout } = program;
    if (stdout === null) throw new TypeError(`${name} has no output`);
    stdout.setEncoding("utf8").on("data", (more: string) => {
      text += more;
    });
    const spoke = once(stdout, "data");
    const used = once(program, "close").then(([code]): Usage => {
      if (code !== 0) throw new Error(`${name} has ended with ${code}`);
      return JSON.parse(text.trim().split("\n").at(-1) ?? "");
    });
    return { spoke, used };
  }

  /** Waits for the next message of a half. @throws Error when the half ends before */
  private async answer<T>(half: ChildProcess): Promise<T> {
    const over = new AbortController();
    try {
      const gone = once(half, "exit", over).then(([code]) => {
        throw new Error(`A half of bench:path has ended with ${code}`);
      });
      const [message] = await Promise.race([once(half, "message", over), gone]);
      return message;
    } finally {
      over.abort();
    }
  }
}

/** CPU seconds of both kinds. */
export const sum = ({ user, system }: Usage): number => user + system;
