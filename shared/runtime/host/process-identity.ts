/**
 * Tells one process from another by Linux's /proc. A pid alone is not enough: pids are used again, and after a reboot
 * they start over.
 *
 * "Cannot tell" is never "has ended": an agent that takes a living QEMU for an ended one starts a second copy of its
 * guest. Only ENOENT and ESRCH of /proc/PID prove an end (docs/decisions/0043, rule 2). ENOENT does so only where the
 * kernel knows no such process either, since with the mount option `hidepid` it is also the answer for processes of
 * other users.
 */
import { readFile } from "node:fs/promises";
import { MigrationFault } from "../../fault.ts";

/** A process, as the records of shared/protocol/ownership.ts name it. */
export interface IdentifiedProcess {
  readonly pid: number;
  /** What identify() returned while the process lived. */
  readonly identity: string;
}

/** What these functions ask of the host; tests pass their own. */
export interface ProcessTable {
  /** Reads a file of /proc. @throws the error of the file system, with its `code` */
  read(path: string): Promise<string>;
  /**
   * Tells whether the kernel knows a process of this pid, whether or not /proc shows it.
   * @throws the error of kill(2), unless that is EPERM or ESRCH
   */
  isKnown(pid: number): boolean;
}

/**
 * Splits /proc/PID/stat after the command's name, which may hold any text.
 * @returns the fields from the third one on, which is the state
 */
export const statFields = (stat: string): readonly string[] => stat.slice(stat.lastIndexOf(")") + 2).split(" ");

/** Indexes into statFields(): the state, the number of threads, and the start time in kernel ticks since boot. */
const STATE = 0;
const THREADS = 17;
const START_TIME = 19;

/**
 * Names a process by boot, pid and start time.
 * @returns the same text for as long as this process lives, and the text of no other process; undefined when it has
 *   ended
 * @throws MigrationFault `internal` when the host does not tell
 */
export async function identify(pid: number, table: ProcessTable = thisHost): Promise<string | undefined> {
  return pid <= 0 ? undefined : identityIn(await bootId(table), pid, table);
}

async function identityIn(boot: string, pid: number, table: ProcessTable): Promise<string | undefined> {
  const stat = await statOf(pid, table);
  if (stat === undefined) return undefined;
  const fields = statFields(stat);
  const [state, threads, startTime] = [fields[STATE], fields[THREADS], fields[START_TIME]];
  if (state === undefined || !isNumber(threads) || !isNumber(startTime))
    throw cannotTell(pid, new TypeError(`/proc/${pid}/stat says ${JSON.stringify(stat)}`));
  if (hasNoThreads(state, Number(threads))) return undefined;
  return `${boot}/${pid}/${startTime}`;
}

/**
 * Tells whether exactly this process has ended, whichever process has its pid now.
 * @throws MigrationFault `internal` when the host does not tell, or the identity is not one that identify() makes
 */
export async function hasEnded(process: IdentifiedProcess, table: ProcessTable = thisHost): Promise<boolean> {
  const { pid, identity } = process;
  const [boot, number, startTime, ...rest] = identity.split("/");
  if (!boot || number !== String(pid) || !isNumber(startTime) || rest.length > 0)
    throw new MigrationFault("internal", `${JSON.stringify(identity)} is not the identity of process ${pid}`);
  // no process outlives its boot
  if ((await bootId(table)) !== boot) return true;
  return pid <= 0 || (await identityIn(boot, pid, table)) !== identity;
}

/**
 * True for a process that has ended, although its parent has not waited for it yet. Such a process has one thread at
 * most. A process in the same state that has more threads does not count as ended, since one of the threads may be in
 * the kernel and write to the guest's disks.
 * @param state the letter in /proc/PID/stat: Z for a zombie, X for a dead process
 */
const hasNoThreads = (state: string, threads: number): boolean => (state === "Z" || state === "X") && threads <= 1;

const isNumber = (text: string | undefined): text is string => text !== undefined && /^\d+$/.test(text);

async function bootId(table: ProcessTable): Promise<string> {
  const path = "/proc/sys/kernel/random/boot_id";
  const text = await table.read(path).catch((thrown: unknown) => {
    throw new MigrationFault("internal", `Cannot read ${path}: ${textOf(thrown)}`, { cause: thrown, advice: ADVICE });
  });
  const boot = text.trim();
  if (/^[0-9a-f-]{36}$/.test(boot)) return boot;
  throw new MigrationFault("internal", `${path} says ${JSON.stringify(boot)}, which is no boot id`, { advice: ADVICE });
}

async function statOf(pid: number, table: ProcessTable): Promise<string | undefined> {
  try {
    return await table.read(`/proc/${pid}/stat`);
  } catch (thrown) {
    const code = codeOf(thrown);
    if (code === "ESRCH") return undefined;
    if (code !== "ENOENT" || isKnown(pid, table)) throw cannotTell(pid, thrown);
    return undefined;
  }
}

function isKnown(pid: number, table: ProcessTable): boolean {
  try {
    return table.isKnown(pid);
  } catch (thrown) {
    throw cannotTell(pid, thrown);
  }
}

const ADVICE =
  "See that /proc is mounted, that its option hidepid hides no processes, and that file descriptors are left";

const cannotTell = (pid: number, thrown: unknown): MigrationFault =>
  new MigrationFault("internal", `Cannot tell whether process ${pid} lives: ${textOf(thrown)}`, {
    cause: thrown,
    advice: ADVICE,
  });

const textOf = (thrown: unknown): string => (thrown instanceof Error ? thrown.message : String(thrown));

const codeOf = (thrown: unknown): unknown =>
  typeof thrown === "object" && thrown !== null && "code" in thrown ? thrown.code : undefined;

const thisHost: ProcessTable = {
  read: (path) => readFile(path, "utf8"),
  isKnown: (pid) => {
    try {
      return process.kill(pid, 0);
    } catch (thrown) {
      const code = codeOf(thrown);
      if (code === "EPERM") return true;
      if (code === "ESRCH") return false;
      throw thrown;
    }
  },
};
