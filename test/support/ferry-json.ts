/** Runs the `ferry` command with --json, and returns the objects that it printed and how it ended. */
import type { MigrationErrorView, MigrationResult, MigrationView } from "../../shared/protocol/report.ts";
import { ferry, type HostAgents } from "./agents.ts";
import { bounded } from "./bounded.ts";
import type { RigProcess } from "./process.ts";
import type { Rig } from "./rig.ts";

const RUN_MS = 120_000;

export interface FerryRun<Answer> {
  readonly code: number | null;
  /** The last object on standard output. */
  readonly answer: Answer;
  readonly output: string;
}

/** The last view of a migration, or an error if the agent has not begun one. */
export type Ended =
  | MigrationView
  | { readonly error: MigrationErrorView; readonly result?: never; readonly id?: never };

/** Runs `ferry ARGS --json` to its end. */
export async function ferryJson<Answer>(
  rig: Rig,
  agents: HostAgents,
  args: readonly string[],
): Promise<FerryRun<Answer>> {
  return await toEnd<Answer>(await ferry(rig, agents, ["--json", ...args]));
}

/** A run of `ferry migrate` that is under way. */
export class MigrateRun {
  private readonly process: RigProcess;

  constructor(process: RigProcess) {
    this.process = process;
  }

  /** Rejects when `ferry` ends. @throws Error with what `ferry` has written */
  get ended(): Promise<never> {
    return this.process.ended.then(({ code }) => {
      throw new Error(`It ended with ${code}: ${this.output().slice(-2000)}`);
    });
  }

  /** What `ferry` has written so far. */
  output(): string {
    return this.process.output();
  }

  /** Waits until pages are on their way. @returns the id of the migration */
  async copying({ timeoutMs = 30_000 } = {}): Promise<string> {
    const [, id] = await this.process.waitForOutput(
      /^\{"id":"(\w+)"[^\n]*"status":"copying"[^\n]*"bytesSent":[1-9]\d{5,}/m,
      { timeoutMs },
    );
    return id!;
  }

  /** Waits until the output of `ferry` matches. @param what names what is waited for, in the error */
  async until(pattern: RegExp, what: string, { timeoutMs = 60_000 } = {}): Promise<void> {
    await bounded(this.process.waitForOutput(pattern, { timeoutMs }), timeoutMs + 1000, what);
  }

  /** Interrupts `ferry`, as Ctrl-C does. */
  interrupt(): void {
    this.process.signal("SIGINT");
  }

  /** Waits for the end of `ferry`. */
  end(): Promise<FerryRun<Ended>> {
    return toEnd<Ended>(this.process);
  }
}

export async function startMigrate(
  rig: Rig,
  from: HostAgents,
  to: HostAgents,
  guest: string,
  options: readonly string[] = [],
): Promise<MigrateRun> {
  return new MigrateRun(
    await ferry(rig, from, ["--json", "migrate", guest, "--to", to.destinationAddress, ...options]),
  );
}

/** Runs `ferry migrate` to its end, whether the guest is moved or not. */
export async function migrate(...args: Parameters<typeof startMigrate>): Promise<FerryRun<Ended>> {
  return await (await startMigrate(...args)).end();
}

/** Takes a run that must have moved its guest. @throws Error with the output of `ferry`, when it has not */
export function requireMoved({ code, answer, output }: FerryRun<Ended>): MigrationView & { result: MigrationResult } {
  if (code !== 0 || answer.id === undefined || answer.status !== "moved" || answer.result === undefined)
    throw new Error(`The guest was not moved, exit code ${code}: ${output.slice(-3000)}`);
  return { ...answer, result: answer.result };
}

/** Makes the link slow. @returns the options of `ferry migrate` that make a migration over a loopback as slow */
export async function slowLink(rig: Rig, bitsPerSecond: number): Promise<string[]> {
  await rig.network.setRate(bitsPerSecond);
  return rig.network.kind === "loopback" ? ["--bandwidth", `${bitsPerSecond / 1e6}Mbit`] : [];
}

async function toEnd<Answer>(process: RigProcess): Promise<FerryRun<Answer>> {
  const { code } = await bounded(process.ended, RUN_MS, `the end of ${process.name}: ${process.output().slice(-2000)}`);
  const output = process.output();
  const last = output.split("\n").findLast((line) => line.startsWith("{"));
  if (last === undefined) throw new Error(`${process.name} ended with ${code} and wrote no object: ${output}`);
  return { code, answer: JSON.parse(last) as Answer, output };
}
