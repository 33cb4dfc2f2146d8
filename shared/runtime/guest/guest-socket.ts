/**
 * Connects to the sockets of QEMUs. They may be in a directory in which a guest that broke out of its QEMU has put
 * something else: a guest with a user of its own owns the directory in which the agent meets its QEMU
 * (shared/guest-directory.ts). The agent may use the directories of all guests, and a guest only its own directory. If
 * the guest put a link there to another guest's monitor, the agent would do to that guest what was meant for this one
 * (docs/design/guests-and-units.md#files-that-cross-the-border).
 */
import { closeSync, constants, fstatSync, openSync, type Stats, statSync } from "node:fs";
import { connect, Socket } from "node:net";
import { dirname } from "node:path";
import { MigrationFault } from "../../fault.ts";

/** A flag of open(2) that Node does not name: only the place in the file system is opened, whatever is there. */
const O_PATH = 0o10000000;

/**
 * Finds the user who may put something at a path, if that is neither root nor the agent's own user.
 * @returns the number of the user; undefined where the directory is root's or the agent's, or is not there
 */
export function strangerAt(path: string): number | undefined {
  const uid = statSync(dirname(path), { throwIfNoEntry: false })?.uid;
  return uid === 0 || uid === process.getuid?.() ? undefined : uid;
}

/**
 * Connects to the socket of a QEMU. In the directory of another user no link is followed, and the socket must belong to
 * that user.
 * @returns a socket that fails with the event `error`, as a socket of node:net does
 */
export function connectToQemu(path: string): Socket {
  let owner: number | undefined;
  let place: number;
  try {
    owner = strangerAt(path);
    if (owner === undefined) return connect(path);
    place = openSync(path, O_PATH | constants.O_NOFOLLOW);
  } catch (thrown) {
    return new Socket().destroy(thrown instanceof Error ? thrown : MigrationFault.from(thrown));
  }
  const mistake = mistakeOf(fstatSync(place), owner);
  if (mistake !== undefined) {
    closeSync(place);
    return new Socket().destroy(isNotTheirs(path, mistake, owner));
  }
  const socket = connect(`/proc/self/fd/${place}`);
  // a socket that is connected, or has failed, does not need the place any more
  let isOpen = true;
  const close = (): void => {
    if (isOpen) closeSync(place);
    isOpen = false;
  };
  return socket.once("connect", close).once("close", close);
}

/**
 * Connects as connectToQemu() does, and waits for the connection.
 * @param whose what the fault calls the QEMU
 * @throws MigrationFault `qemu-failed`
 */
export function connectedToQemu(path: string, whose: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectToQemu(path).once("connect", () => resolve(socket));
    socket.once("error", (cause) =>
      reject(new MigrationFault("qemu-failed", `Cannot reach ${whose} at ${path}: ${cause.message}`, { cause })),
    );
  });
}

/**
 * Tells whether a program listens at the socket of a QEMU, by a connection as connectToQemu() makes it. Nothing is said
 * to that program, and no greeting is waited for, because a monitor may serve another client.
 * @returns false only where it is proven that no program listens
 */
export function isListenedAt(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectToQemu(path).once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", ({ code }: NodeJS.ErrnoException) => resolve(code !== "ECONNREFUSED" && code !== "ENOENT"));
  });
}

const isNotTheirs = (path: string, mistake: string, owner: number): MigrationFault =>
  new MigrationFault(
    "qmp-forbidden",
    `${path} ${mistake}, and is in the directory of user ${owner}; nobody was asked there`,
    {
      advice: `QEMU makes its socket there itself, as user ${owner}. If you have not put something else there, that guest has`,
    },
  );

/** @returns what is wrong with what was found at the path; undefined when it is a socket of its owner */
function mistakeOf(found: Stats, owner: number): string | undefined {
  if (found.isSymbolicLink()) return "is a link";
  if (!found.isSocket()) return "is no socket";
  return found.uid === owner ? undefined : `belongs to user ${found.uid}`;
}
