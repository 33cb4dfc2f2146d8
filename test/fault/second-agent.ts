/**
 * Starts a second agent beside a running one in the middle of a migration. The second one must end at once, and must
 * have touched nothing.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { spawnAgent } from "../support/agents.ts";
import { bounded, eventually } from "../support/bounded.ts";
import type { RigHost } from "../support/rig.ts";
import type { FaultRig } from "./fault-rig.ts";
import type { AgentKind } from "./faults.ts";

const LEAVES_WITHIN_MS = 20_000;
const RESTS_WITHIN_MS = 20_000;
/** The exit code for "another agent has its directories or its address" (docs/operations.md). */
const AGENT_RUNNING_EXIT = 3;

/** Starts a second agent on a host. @throws Error that says what that agent did instead */
export async function startSecondAgent(on: FaultRig, host: RigHost, kind: AgentKind): Promise<void> {
  const before = await restingFiles(host);
  const second = await spawnAgent(on.rig, host, kind);
  on.casts(second);
  const { code } = await bounded(second.ended, LEAVES_WITHIN_MS, `the end of a second ${kind} agent`);
  if (code !== AGENT_RUNNING_EXIT)
    throw new Error(`A second ${kind} agent ended with ${code}: ${second.output().slice(-500)}`);
  const after = new Set(filesOf(host));
  const gone = before.filter((file) => !after.has(file));
  if (gone.length > 0) throw new Error(`A second ${kind} agent has touched ${gone.join(", ")}`);
}

/**
 * Waits until the first agent, which is held in a state, has written what it still had to write. @returns the files
 * then
 */
async function restingFiles(host: RigHost): Promise<readonly string[]> {
  let before: readonly string[] = [];
  const rest = async (): Promise<readonly string[] | undefined> => {
    const now = filesOf(host);
    const isSame = now.join("\n") === before.join("\n");
    before = now;
    return isSame ? now : undefined;
  };
  return await eventually(rest, { timeoutMs: RESTS_WITHIN_MS, everyMs: 500, what: "a pause of the first agent" });
}

/**
 * Lists the files of a host by their inodes: a file that was removed and made again has another inode. Files that the
 * first agent makes or grows meanwhile are its own doing.
 */
function filesOf(host: RigHost): readonly string[] {
  return [host.stateDirectory, host.runtimeDirectory].flatMap((directory) =>
    readdirSync(directory, { recursive: true, encoding: "utf8" })
      .filter((name) => !name.endsWith(".new"))
      .map((name) => `${name} (inode ${statSync(join(directory, name), { throwIfNoEntry: false })?.ino})`),
  );
}
