/**
 * Finds the process that answers at a monitor. A migration is about one process (docs/design/ownership.md, rule 1).
 * Another QEMU at the same socket was started by a supervisor or an operator, and the agent says nothing to such a
 * QEMU.
 */
import { readFile } from "node:fs/promises";
import { MigrationFault } from "../../fault.ts";
import { findProcesses } from "../host/all-processes.ts";
import { type IdentifiedProcess, identify } from "../host/process-identity.ts";
import { strangerAt } from "./guest-socket.ts";

/** The only question that is asked of a monitor here. */
export interface ThreadTeller {
  execute(command: "query-cpus-fast", given?: undefined, options?: { timeoutMs?: number }): Promise<readonly Thread[]>;
}

interface Thread {
  readonly "thread-id": number;
}

/**
 * Finds the QEMU at a monitor. QEMU itself names one of its threads (`query-cpus-fast`), and Linux knows the process of
 * that thread. A QEMU without a processor (`-M none`), or in another PID namespace, is found by its command line, which
 * names the socket.
 * @param path the path of the monitor's socket
 * @param options `timeoutMs` bounds the question, milliseconds
 * @throws MigrationFault `not-supported` when no process, or more than one, can be this QEMU, or when the guest has a
 *   user of its own and the process belongs to another user; and what `query-cpus-fast` throws
 */
export async function processBehind(
  qmp: ThreadTeller,
  path: string,
  options: { timeoutMs?: number } = {},
): Promise<IdentifiedProcess> {
  const [cpu] = await qmp.execute("query-cpus-fast", undefined, options);
  const threaded = cpu === undefined ? undefined : await processOfThread(cpu["thread-id"]);
  if (threaded !== undefined && (await namesSocket(threaded, path))) return identified(threaded, path);
  const named = await processesNaming(path);
  if (named.length === 1 && named[0] !== undefined) return identified(named[0], path);
  // no command line names a monitor that QEMU was given as an open file
  if (named.length === 0 && threaded !== undefined) return identified(threaded, path);
  throw cannotBeFound(path, named.length);
}

/** True when `pid` is `process` or a descendant of it: the command of a guest may start QEMU and wait for its end. */
export async function isOf(pid: number, process: IdentifiedProcess): Promise<boolean> {
  for (let at: number | undefined = pid; at !== undefined && at > 1; at = await parentOf(at))
    if (at === process.pid) return (await identify(at)) === process.identity;
  return false;
}

/** Reads a number of /proc/PID/status. @returns undefined when there is no such process or thread */
async function numberInStatus(pid: number, line: RegExp): Promise<number | undefined> {
  const status = await readFile(`/proc/${pid}/status`, "latin1").catch(() => "");
  const found = line.exec(status)?.[1];
  return found === undefined ? undefined : Number(found);
}

/**
 * Tells whether a process can be a QEMU of a guest, or a program that starts one: it belongs to root, to the agent's
 * own user, or to the user whose directory the guest's monitor is in. The command line of another user's process proves
 * nothing, since that user can run a program under any command line.
 * @param path the path of the guest's monitor
 */
export async function isTrusted(pid: number, path: string): Promise<boolean> {
  const trusted = [0, process.getuid?.(), strangerAt(path)];
  // a program with the set-user-ID bit of root has root as its effective user, but its real user has written its
  // command line
  const users = await Promise.all([userOf(pid), numberInStatus(pid, /^Uid:\s*(\d+)/m)]);
  return users.every((user) => user !== undefined && trusted.includes(user));
}

/** Reads the effective user of a process. */
const userOf = (pid: number): Promise<number | undefined> => numberInStatus(pid, /^Uid:\s*\d+\s+(\d+)/m);
const parentOf = (pid: number): Promise<number | undefined> => numberInStatus(pid, /^PPid:\s*(\d+)$/m);

/**
 * Identifies a process that was found. Where the guest has a user of its own, the process must belong to that user. It
 * may be QEMU itself that named the thread by which the process was found, so a guest that broke out of its QEMU could
 * name a thread of another process, and the agent would take that process for the guest's QEMU.
 * @param path the path of the monitor's socket
 */
async function identified(pid: number, path: string): Promise<IdentifiedProcess> {
  const owner = strangerAt(path);
  if (owner !== undefined && (await userOf(pid)) !== owner) throw wrongUser(pid, path, owner);
  const identity = await identify(pid);
  if (identity === undefined) throw cannotBeFound(path, 0);
  return { pid, identity };
}

/** Finds the process that a thread belongs to. @returns undefined when Linux shows no such thread */
async function processOfThread(thread: number): Promise<number | undefined> {
  // the number comes from QEMU, and becomes a part of a path
  return Number.isSafeInteger(thread) ? await numberInStatus(thread, /^Tgid:\s*(\d+)$/m) : undefined;
}

/** True when an argument of the process names the path as a whole, as "unix:/run/ferry/web.qmp,server=on" does. */
async function namesSocket(pid: number, path: string): Promise<boolean> {
  const command = await readFile(`/proc/${pid}/cmdline`, "latin1").catch(() => "");
  return command.split("\0").some((argument) => argument.split(/[,:=]/).includes(path));
}

async function processesNaming(path: string): Promise<readonly number[]> {
  return await findProcesses((pid) => namesSocket(pid, path));
}

/** Makes the fault of a monitor at which another process answers than the process that the migration is about. */
export const anotherAnswers = (answers: IdentifiedProcess, path: string, wanted: IdentifiedProcess): MigrationFault =>
  new MigrationFault(
    "qemu-failed",
    `Process ${answers.pid} answers at ${path}, not process ${wanted.pid}, which this migration is of`,
    { advice: "Another QEMU of the guest was started here; end it, or make sure that no other copy runs" },
  );

const wrongUser = (pid: number, path: string, owner: number): MigrationFault =>
  new MigrationFault(
    "not-supported",
    `The QEMU at ${path} seems to be process ${pid}, which is not a process of user ${owner}, who owns the directory of that socket`,
    {
      advice: `Run the guest's QEMU as user ${owner}; if it is a process of that user already, find out who else answers at that socket`,
    },
  );

const cannotBeFound = (path: string, candidates: number): MigrationFault =>
  new MigrationFault(
    "not-supported",
    candidates === 0
      ? `No process of this host can be seen to be the QEMU that answers at ${path}`
      : `${candidates} processes of this host name ${path}, and QEMU does not tell which of them answers there`,
    {
      advice:
        "Ferry must know the guest's process to keep it single: let the agent see it in /proc (hidepid, PID namespaces)",
    },
  );
