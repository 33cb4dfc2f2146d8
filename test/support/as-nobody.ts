/** Runs programs as a user of the host that is neither an agent's user nor in one of its groups. */
import { spawnSync } from "node:child_process";

/** The user `nobody` of most systems; no file of a test belongs to it. */
export const NOBODY = 65534;

/** Options of a test that acts as another user. Only root can do that; for others the test is skipped. */
export const asNobody = { skip: process.getuid?.() === 0 ? false : "only root can act as another user" };

/** Runs a program as the user `nobody`. @returns its status, and what it has written */
export function runAsNobody(program: string, ...args: readonly string[]): { status: number | null; said: string } {
  const { status, stdout, stderr } = spawnSync(program, args, {
    uid: NOBODY,
    gid: NOBODY,
    cwd: "/",
    env: { PATH: "/usr/bin:/bin" },
    encoding: "utf8",
  });
  return { status, said: `${stdout}${stderr}` };
}
