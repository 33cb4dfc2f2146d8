/**
 * The locks by which one agent of each kind runs on a host. An agent takes them before it reads the journal, removes
 * left-over files or takes up a migration. A second agent on the same directories would withdraw the migrations of the
 * first one, delete its sockets, and in the worst case run a guest twice
 * (docs/design/guests-and-units.md#one-agent-of-a-kind-on-a-host).
 *
 * Two directories are locked: `stateDirectory` for one agent of either kind, and `runtimeDirectory` for one agent of
 * each kind, because the source agent and the destination agent of a host share it. The lock is a lock of flock(2), on
 * the state directory itself and on the file `.ROLE.lock` in the runtime directory. It covers network namespaces and
 * containers that share the file system, and it ends with the process, however the process ends. Node has no flock, so
 * flock(1) of util-linux takes the lock, on an open file that it shares with the agent.
 *
 * Where flock(1) is missing or the file system has no locks, the agent binds an abstract unix socket instead, whose
 * name is made of the directory's device and inode. The kernel lets one process bind a name. Such a name does not cover
 * agents in two network namespaces, since each namespace has names of its own. Any user of the host may take the name,
 * which keeps the agent from starting. An agent that has only such a name logs that.
 *
 * Neither lock covers two hosts that share the directory over the network: stateDirectory belongs on a local disk.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, existsSync, openSync } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { MigrationFault } from "../../fault.ts";
import { type Holder, holderOfFileLock, holderOfUnixSocket } from "../host/process-holding.ts";
import type { Logger } from "../log/log.ts";

export interface LockedPlaces {
  readonly role: "source" | "destination";
  readonly stateDirectory: string;
  readonly runtimeDirectory: string;
}

export interface AgentLock {
  /** Releases both locks. Only tests do so: an agent keeps its locks until it ends. */
  release(): void;
}

/** Absolute paths, so that PATH does not decide what runs with the agent's rights. */
const FLOCK_PROGRAMS = ["/usr/bin/flock", "/bin/flock"];
/** The descriptor in flock(1) of the directory or file that is locked: the first one after the standard ones. */
const SHARED_DESCRIPTOR = 3;
/**
 * How the file that is locked is opened. A new file gets mode 0600, so only the agent's user can open it: every process
 * that can open a file can also lock it.
 */
const NEW_FILE = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
/** Exit code of flock(1) when another process has the lock. */
const IS_TAKEN = 1;
/**
 * Bytes of an abstract name after its leading zero. Names are padded to the whole of sun_path, because some versions of
 * libuv bind all of sun_path and others only the given name: a directory must have the same name for all of them.
 */
const NAME_BYTES = 107;

/**
 * Locks the directories of an agent. Resolves when no other agent can have them.
 * @param log gets a warning where flock(1) cannot be used
 * @param flockPrograms for tests
 * @throws MigrationFault `agent-running` when another agent has one of them, `state-directory` when what is to be
 *   locked cannot be opened or a name cannot be bound; nothing was changed then
 */
export async function lockDirectories(
  { role, stateDirectory, runtimeDirectory }: LockedPlaces,
  log: Logger,
  flockPrograms: readonly string[] = FLOCK_PROGRAMS,
): Promise<AgentLock> {
  const held: (() => void)[] = [];
  const release = (): void => {
    for (const one of held.splice(0)) one();
  };
  try {
    for (const place of [
      { key: "stateDirectory", directory: stateDirectory, purpose: "state" },
      { key: "runtimeDirectory", directory: runtimeDirectory, purpose: `${role} runtime`, file: `.${role}.lock` },
    ])
      held.push((await lockFile(place, log, flockPrograms)) ?? (await bindName(place)));
  } catch (thrown) {
    release();
    throw thrown;
  }
  return { release };
}

interface Place {
  /** The setting that names the directory. */
  readonly key: string;
  readonly directory: string;
  /** What the directory is locked for: a part of its abstract name. */
  readonly purpose: string;
  /** The file in the directory that is locked instead of the directory, since an agent of the other kind shares it. */
  readonly file?: string;
}

/** Makes the abstract name of a directory. Every path to the directory leads to the same device and inode. */
async function nameOf({ purpose, directory }: Place): Promise<string> {
  const { dev, ino } = await stat(directory, { bigint: true });
  return `ferry ${purpose} ${dev} ${ino} `.padEnd(NAME_BYTES, ".");
}

/** Locks the directory by its abstract name. @returns a function that releases the lock */
async function bindName(place: Place): Promise<() => void> {
  const { key, directory } = place;
  const name = await nameOf(place);
  const server = createServer((socket) => socket.destroy());
  // the lock alone must not keep the process alive
  server.unref();
  const problem = await listenAt(server, `\0${name}`);
  if (problem === undefined) return () => server.close();
  if (problem.code === "EADDRINUSE") throw isTaken(place, await holderOfUnixSocket(`@${name}`));
  throw new MigrationFault("state-directory", `Cannot lock ${key} ${directory}: ${problem.message}`, {
    cause: problem,
    advice: "The agent needs flock(1) of util-linux, or unix sockets (RestrictAddressFamilies=AF_UNIX in its unit)",
  });
}

function listenAt(server: Server, path: string): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => {
    server.once("error", resolve);
    server.listen(path, () => resolve(undefined));
  });
}

/**
 * Locks the directory, or its file, with flock(2). The open file holds the lock.
 * @returns a function that releases the lock; undefined where flock cannot be used, which is logged
 */
async function lockFile(place: Place, log: Logger, programs: readonly string[]): Promise<(() => void) | undefined> {
  const { key, directory, file } = place;
  const unlocked = (reason: string): undefined => {
    log.warn({ reason, directory }, `${key} is locked for this network namespace only`);
  };
  const program = programs.find((path) => existsSync(path));
  if (program === undefined) return unlocked(`there is no ${programs.join(" or ")}`);
  const path = file === undefined ? directory : join(directory, file);
  const descriptor = openToLock(path, file === undefined ? constants.O_RDONLY : NEW_FILE);
  const child = spawn(program, ["-x", "-n", String(SHARED_DESCRIPTOR)], {
    stdio: ["ignore", "ignore", "ignore", descriptor],
  });
  const [code] = await once(child, "exit").catch((thrown: unknown) => [String(thrown)]);
  if (code === 0) return () => closeSync(descriptor);
  closeSync(descriptor);
  if (code === IS_TAKEN) throw isTaken(place, await holderOfFileLock(path));
  return unlocked(`${program} ended with ${code}`);
}

function openToLock(path: string, flags: number): number {
  try {
    return openSync(path, flags, 0o600);
  } catch (thrown) {
    throw new MigrationFault("state-directory", `Cannot lock ${path}: ${MigrationFault.from(thrown).message}`, {
      cause: thrown,
      advice:
        "The agent locks a file in a directory of its own, which it makes itself; see which user has made this one",
    });
  }
}

function isTaken({ key, directory }: Place, holder: Holder | undefined): MigrationFault {
  const who =
    holder === undefined
      ? "another agent, whose process cannot be seen from here,"
      : `process ${holder.pid} (${holder.command})`;
  return new MigrationFault("agent-running", `${key} ${directory} is in use: ${who} has locked it`, {
    advice:
      "One agent of a kind runs on a host. Leave that one, or stop it before you start this one; " +
      "an agent beside it needs directories and addresses of its own",
  });
}
