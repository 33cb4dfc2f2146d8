/**
 * Measures what a flood does to agents that have a migration under way: their memory, the stalls of their event loops,
 * and the time of the migration.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import type { HostAgents } from "../support/agents.ts";
import { migrate, requireMoved } from "../support/ferry-json.ts";
import type { Pair } from "../support/pair.ts";
import { atTeardown } from "../support/teardown.ts";
import type { Done, Flood } from "./hostile.ts";

/** The name of a host on the agents' list of peers that has been taken over. */
export const TAKEN_OVER = "mallory";

/** How large a flood is: so many connections and messages in so many seconds. */
export interface Size {
  readonly connections: number;
  readonly messages: number;
  readonly seconds: number;
  /**
   * True where the flood gets only the processor time that no other program wants, by the scheduler's idle class: in
   * the world it would take the processors of another host. On a busy machine such a flood may never end.
   * @default false
   */
  readonly isYielding?: boolean;
}

/**
 * Starts a flood of both agents of a migration from `from` to `to`; each agent gets half of it. @returns how much each
 * half has done
 */
export function startFlood({ ca }: Pair, from: HostAgents, to: HostAgents, size: Size): Promise<readonly Done[]> {
  if (ca === undefined) throw new TypeError("the pair has no certificates");
  const { isYielding = false } = size;
  const half = { ...size, connections: size.connections / 2, messages: size.messages / 2 };
  const at = (address: string, role: Flood["role"]): Promise<Done> => {
    const [host = "", port] = address.split(":");
    const files = { stranger: ca.files("stranger"), peer: ca.files(TAKEN_OVER) };
    return hostile({ host, port: Number(port), role, ...files, ...half }, isYielding);
  };
  return Promise.all([at(from.sourceAddress, "source"), at(to.destinationAddress, "destination")]);
}

/** Runs the program of hostile.ts against one agent. */
async function hostile(of: Flood, isYielding: boolean): Promise<Done> {
  const program = join(packageRoot(), "dist/test/flood/hostile.js");
  const run = [...(isYielding ? ["chrt", "--idle", "0"] : []), process.execPath, program];
  const [command = "", ...args] = run;
  const child: ChildProcess = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
  const forget = atTeardown(() => child.kill("SIGKILL"));
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new TypeError("no pipes");
  stdin.end(JSON.stringify(of));
  const [said] = await Promise.all([text(stdout), once(child, "exit")]);
  forget();
  const done: Done = JSON.parse(said);
  return done;
}

/** The longest stall of the event loop among the lines that an agent has written since `from`, milliseconds. */
function longestStallMs(output: string, from: number): number {
  let longest = Number.NaN;
  for (const [, stall] of output.slice(from).matchAll(/"stallMs":([\d.]+)[^\n]*"event loop"/g))
    longest = Number.isNaN(longest) ? Number(stall) : Math.max(longest, Number(stall));
  return longest;
}

/** What one migration has shown, with or without a flood. */
export interface Turn {
  readonly totalMs: number;
  readonly downtimeMs: number;
  readonly sourceStallMs: number;
  readonly destinationStallMs: number;
  readonly flood: readonly Done[];
}

/** Moves the guest once, with a flood from the beginning of the migration or without one. */
export async function turn(
  pair: Pair,
  [from, to]: readonly [HostAgents, HostAgents],
  {
    guest,
    flags,
    size,
  }: { readonly guest: string; readonly flags: readonly string[]; readonly size: Size | undefined },
): Promise<Turn> {
  const before = [from.source.output().length, to.destination.output().length] as const;
  const flood = size === undefined ? Promise.resolve([]) : startFlood(pair, from, to, size);
  const moved = requireMoved(await migrate(pair.rig, from, to, guest, flags));
  const done = await flood;
  return {
    totalMs: 1000 * moved.result.totalSeconds,
    downtimeMs: moved.result.downtime.totalMs,
    sourceStallMs: longestStallMs(from.source.output(), before[0]),
    destinationStallMs: longestStallMs(to.destination.output(), before[1]),
    flood: done,
  };
}
