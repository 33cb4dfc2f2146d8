/**
 * Sockets of QEMUs, in directories where a guest that broke out of its QEMU may have put something else. A guest with a
 * user of its own owns the directory in which the agent meets its QEMU (shared/guest-directory.ts). The agent may use
 * the directories of all guests, and a guest only its own: a link from there to another guest's monitor would have the
 * agent do to that guest what was meant for this one.
 */
import { closeSync, constants, fstatSync, openSync, type Stats, statSync } from "node:fs";
import { connect, Socket } from "node:net";
import { dirname } from "node:path";
import { MigrationFault } from "../../fault.ts";

/** Of open(2), which Node does not name: only the place in the file system is opened, whatever is there. */
const O_PATH = 0o10000000;

/**
 * The user who may put something at a path, where that is neither root nor the agent's own user.
 * @returns undefined where the directory is root's, the agent's, or not there
 */
export function strangerAt(path: string): number | undefined {
  const uid = statSync(dirname(path), { throwIfNoEntry: false })?.uid;
  return uid === 0 || uid === process.getuid?.() ? undefined : uid;
}

/**
 * Connects to the socket of a QEMU. In the directory of another user no link is followed, and the socket must be that
 * user's own.
 * @returns a socket that fails with the event `error`, as one of node:net does
 */
export function connectToQemu(path: string): Socket {
  const owner = strangerAt(path);
  if (owner === undefined) return connect(path);
  let place: number;
  try {
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
  // connected or not, the socket needs the place no more
  let isOpen = true;
  const close = (): void => {
    if (isOpen) closeSync(place);
    isOpen = false;
  };
  return socket.once("connect", close).once("close", close);
}

/**
 * Connects as connectToQemu() does, and waits until the connection is there.
 * @param whose the QEMU's name in the fault
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

const isNotTheirs = (path: string, mistake: string, owner: number): MigrationFault =>
  new MigrationFault(
    "qmp-forbidden",
    `${path} ${mistake}, and is in the directory of user ${owner}; nobody was asked there`,
    {
      advice: `QEMU makes its socket there itself, as user ${owner}. If you have not put something else there, that guest has`,
    },
  );

function mistakeOf(found: Stats, owner: number): string | undefined {
  if (found.isSymbolicLink()) return "is a link";
  if (!found.isSocket()) return "is no socket";
  return found.uid === owner ? undefined : `belongs to user ${found.uid}`;
}
