/** Keeps the output of a failed cell's programs, so that the reason can be found. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import type { FaultRig } from "./fault-rig.ts";

const LOGS = join(packageRoot(), ".cache", "faults");

/** Writes the log of the cell that is under way. @returns the path of the file, from the package's root */
export function keepLog(on: FaultRig, name: string): string {
  mkdirSync(LOGS, { recursive: true });
  const path = join(LOGS, `${name.replace(/\W+/g, "-")}.log`);
  writeFileSync(path, on.logs());
  return relative(packageRoot(), path);
}

export function forgetLogs(): void {
  rmSync(LOGS, { recursive: true, force: true });
}
