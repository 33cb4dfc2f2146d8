/**
 * Tells who is at the other end of a unix socket. The kernel records this when the connection is made (SO_PEERCRED,
 * unix(7)). Node has no getsockopt(2), so a short program that inherits the socket is asked: perl, which each Debian
 * has, or python3, which each Red Hat has.
 */
import { spawn } from "node:child_process";
import type { Socket } from "node:net";

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  /** The user's name; empty where the user has none. */
  readonly user: string;
}

/** The programs, tried one after the other. SOL_SOCKET and SO_PEERCRED of Linux on x86 are 1 and 17. */
const PROGRAMS: readonly (readonly [program: string, ...rest: string[]])[] = [
  [
    "/usr/bin/perl",
    "-e",
    'my ($p, $u) = unpack("iii", getsockopt(STDIN, 1, 17)); print join(" ", $p, $u, scalar(getpwuid($u)) // "");',
  ],
  [
    "/usr/bin/python3",
    "-I",
    "-c",
    `
import pwd, socket, struct
p, u, _ = struct.unpack("3i", socket.socket(fileno=0).getsockopt(1, 17, 12))
try: n = pwd.getpwuid(u).pw_name
except KeyError: n = ""
print(p, u, n)`,
  ],
];

/** How long a program may take, milliseconds. It may hang on a network directory of users. */
const ANSWERS_WITHIN_MS = 5000;
/** The most characters of an answer: a pid, a uid and a name. */
const ANSWER_MAX = 300;

/** The most programs at the same time; further questions wait. */
const AT_ONCE = 2;
const waiting: (() => void)[] = [];
let running = 0;

/**
 * Asks who is at the other end of a socket. Never rejects.
 * @param programs for tests
 * @returns undefined where the host has neither program, or no program answers in time
 */
export async function peerCredentials(
  socket: Socket,
  programs: typeof PROGRAMS = PROGRAMS,
): Promise<PeerCredentials | undefined> {
  for (const [program, ...rest] of programs) {
    if (running >= AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve));
    else running++;
    const answer = /^(\d+) (\d+) (\S*)\s*$/.exec((await answerOf(program, rest, socket)) ?? "");
    const next = waiting.shift();
    if (next === undefined) running--;
    else next();
    if (answer !== null) return { pid: Number(answer[1]), uid: Number(answer[2]), user: answer[3] ?? "" };
  }
  return undefined;
}

function answerOf(program: string, rest: readonly string[], socket: Socket): Promise<string | undefined> {
  const fd = descriptorOf(socket);
  if (fd === undefined) return Promise.resolve(undefined);
  return new Promise((resolve) => {
    const limits = { timeout: ANSWERS_WITHIN_MS, killSignal: "SIGKILL" } as const;
    const child = spawn(program, rest, { stdio: [fd, "pipe", "ignore"], env: {}, cwd: "/", ...limits });
    let text = "";
    child.stdout?.setEncoding("utf8").on("data", (part: string) => {
      text = (text + part).slice(0, ANSWER_MAX);
    });
    child.once("error", () => resolve(undefined));
    child.once("close", (code) => resolve(code === 0 ? text : undefined));
  });
}

/**
 * Finds the descriptor of a socket, which Node does not show. The socket itself cannot be given to a child, because
 * child_process.spawn() would take it from this process: it would not be read here any more.
 * @returns undefined for a closed socket
 */
function descriptorOf(socket: Socket): number | undefined {
  const handle: unknown = Reflect.get(socket, "_handle");
  const fd: unknown = typeof handle === "object" && handle !== null ? Reflect.get(handle, "fd") : undefined;
  return typeof fd === "number" && fd >= 0 ? fd : undefined;
}
