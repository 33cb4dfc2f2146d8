import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "./package-root.ts";

/** Ferry's version, as package.json has it. */
export function packageVersion(): string {
  const content: unknown = JSON.parse(readFileSync(join(packageRoot(), "package.json"), "utf8"));
  const named = typeof content === "object" && content !== null && "version" in content;
  return named && typeof content.version === "string" ? content.version : "unknown";
}
