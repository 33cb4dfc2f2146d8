/**
 * A program for tests. It locks the directories of an agent, prints "locked" or why it could not, and runs until it is
 * killed.
 */
import { lockDirectories } from "../../shared/runtime/files/agent-lock.ts";
import { createLogger } from "../../shared/runtime/log/log.ts";

const [, , role, stateDirectory = "", runtimeDirectory = ""] = process.argv;
const places = {
  role: role === "destination" ? "destination" : "source",
  stateDirectory,
  runtimeDirectory,
} as const;
const said = await lockDirectories(places, createLogger("holder", "silent")).then(
  () => "locked",
  (thrown: unknown) => String(thrown),
);
process.stdout.write(`${said}\n`);
process.stdin.resume();
