/**
 * One agent a host: the locks that an agent takes before it reads the journal, removes left-over files or takes
 * anything up. A second agent on the same directories would withdraw the migrations of the first one, delete its
 * sockets, and in the worst case run a guest twice.
 *
 * Two directories are locked: `stateDirectory` for one agent of either kind, `runtimeDirectory` for one agent of each
 * kind, because the source agent and the destination agent of a host share it. A directory is known by its device and
 * inode, so another path to it is the same directory. Nothing is written. Both guards end with the process, however it
 * ends:
 *
 * 1. An abstract unix socket is named after the directory. The kernel lets one process bind it. This guard does not
 *    cover agents in two network namespaces, since each namespace has abstract names of its own. Any user of the host
 *    may take such a name, which keeps the agent from starting.
 * 2. `stateDirectory` itself is locked with flock(2), which also covers network namespaces and containers that share
 *    the file system. Node has no flock, so flock(1) of util-linux takes the lock on an open file that it shares with
 *    the agent. Where that program is missing or the file system has no locks, the agent logs that and starts.
 *
 * Neither guard covers two hosts that share the directory over the network: stateDirectory belongs on a local disk.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { MigrationFault } from "../fault.ts";
import type { Logger } from "./log.ts";
import { type Holder, holderOfFileLock, holderOfUnixSocket } from "./process-holding.ts";

export interface LockedPlaces {
  readonly role: "source" | "destination";
  readonly stateDirectory: string;
  readonly runtimeDirectory: string;
}

export interface AgentLock {
  /** For tests: an agent keeps its lock until it ends. */
  release(): void;
}

/** Absolute paths, so that PATH does not decide what runs with the agent's rights. */
const FLOCK_PROGRAMS = ["/usr/bin/flock", "/bin/flock"];
/** The descriptor of the directory in flock(1): the first one behind the standard ones. */
const SHARED_DESCRIPTOR = 3;
/** Exit code of flock(1) when another process has the lock. */
const IS_TAKEN = 1;
/**
 * Bytes of an abstract name behind its leading zero. Names are padded to the whole of sun_path, because some versions
 * of libuv bind the whole of it and others only the name that was given: a directory must have the same name for all of
 * them.
 */
const NAME_BYTES = 107;

/**
 * Locks the directories of an agent. Resolves when no other agent can have them.
 * @param log gets a warning where flock(1) cannot be used
 * @param flockPrograms for tests
 * @throws MigrationFault `agent-running` when another agent has one of them, `state-directory` when a name cannot be
 *   bound; nothing was changed then
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
    held.push(await bindName("stateDirectory", stateDirectory, await nameOf("state", stateDirectory)));
    held.push(await bindName("runtimeDirectory", runtimeDirectory, await nameOf(`${role} runtime`, runtimeDirectory)));
    held.push(await lockFile(stateDirectory, log, flockPrograms));
  } catch (thrown) {
    release();
    throw thrown;
  }
  return { release };
}

async function nameOf(purpose: string, directory: string): Promise<string> {
  const { dev, ino } = await stat(directory, { bigint: true });
  return `ferry ${purpose} ${dev} ${ino} `.padEnd(NAME_BYTES, ".");
}

async function bindName(key: string, directory: string, name: string): Promise<() => void> {
  const server = createServer((socket) => socket.destroy());
  // the lock alone must not keep the process alive
  server.unref();
  const problem = await listenAt(server, `\0${name}`);
  if (problem === undefined) return () => server.close();
  if (problem.code === "EADDRINUSE") throw isTaken(key, directory, await holderOfUnixSocket(`@${name}`));
  throw new MigrationFault("state-directory", `Cannot lock ${key} ${directory}: ${problem.message}`, {
    cause: problem,
    advice: "The agent needs unix sockets (RestrictAddressFamilies=AF_UNIX in its unit)",
  });
}

function listenAt(server: Server, path: string): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => {
    server.once("error", resolve);
    server.listen(path, () => resolve(undefined));
  });
}

/** Locks the directory with flock(2). The open file of the directory holds the lock. @returns releases it */
async function lockFile(directory: string, log: Logger, programs: readonly string[]): Promise<() => void> {
  const unlocked = (reason: string): (() => void) => {
    log.warn({ reason }, "stateDirectory is locked for this network namespace only");
    return () => undefined;
  };
  const program = programs.find((path) => existsSync(path));
  if (program === undefined) return unlocked(`there is no ${programs.join(" or ")}`);
  const descriptor = openSync(directory, "r");
  const child = spawn(program, ["-x", "-n", String(SHARED_DESCRIPTOR)], {
    stdio: ["ignore", "ignore", "ignore", descriptor],
  });
  const [code] = await once(child, "exit").catch((thrown: unknown) => [String(thrown)]);
  if (code === 0) return () => closeSync(descriptor);
  closeSync(descriptor);
  if (code === IS_TAKEN) throw isTaken("stateDirectory", directory, await holderOfFileLock(directory));
  return unlocked(`${program} ended with ${code}`);
}

function isTaken(key: string, directory: string, holder: Holder | undefined): MigrationFault {
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
