/** The output of a failed cell's programs, for whoever wants to know why. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import type { FaultRig } from "./fault-rig.ts";

const LOGS = join(packageRoot(), ".cache", "faults");

/** @returns the file, from the package's root */
export function keepLog(on: FaultRig, name: string): string {
  mkdirSync(LOGS, { recursive: true });
  const path = join(LOGS, `${name.replace(/\W+/g, "-")}.log`);
  writeFileSync(path, on.logs());
  return relative(packageRoot(), path);
}

export function forgetLogs(): void {
  rmSync(LOGS, { recursive: true, force: true });
}
