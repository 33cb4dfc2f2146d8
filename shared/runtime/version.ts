/** Tells which version of Ferry this is. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "./package-root.ts";

/** Reads Ferry's version from package.json. @returns `unknown` where package.json names none */
export function packageVersion(): string {
  const content: unknown = JSON.parse(readFileSync(join(packageRoot(), "package.json"), "utf8"));
  const named = typeof content === "object" && content !== null && "version" in content;
  return named && typeof content.version === "string" ? content.version : "unknown";
}
