/** Finds processes of this machine by what /proc says of them. */
import { readdirSync, readFileSync } from "node:fs";

export interface FoundProcess {
  readonly pid: number;
  readonly command: string;
}

export interface SeenProcess extends FoundProcess {
  /** NAME=VALUE of each variable, with a zero byte after each. */
  readonly environment: string;
}

/** Finds the processes that `isWanted` accepts. This program, and processes that have ended, are left out. */
export function findProcesses(isWanted: (seen: SeenProcess) => boolean): FoundProcess[] {
  const found: FoundProcess[] = [];
  for (const entry of readdirSync("/proc")) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const command = readIfThere(`/proc/${pid}/cmdline`);
    if (command === "") continue;
    const seen = { pid, command, environment: readIfThere(`/proc/${pid}/environ`) };
    if (isWanted(seen)) found.push({ pid, command: command.replaceAll("\0", " ").trim() });
  }
  return found;
}

/** The path of a process's control group; empty for a process that has ended. */
export const controlGroupOf = (pid: number): string =>
  readIfThere(`/proc/${pid}/cgroup`).match(/^0::(.*)$/m)?.[1] ?? "";

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
