/** What a user of the host can do that is neither an agent nor in one of its groups. */
import { spawnSync } from "node:child_process";

/** The user `nobody` of most systems; no file of a test belongs to it. */
export const NOBODY = 65534;

/** Only root can be somebody else. */
export const asNobody = { skip: process.getuid?.() === 0 ? false : "only root can act as another user" };

/** Runs a program as that user. @returns its status, and what it has written */
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
