/**
 * Who is at the other end of a unix socket: the kernel's SO_PEERCRED (unix(7)), which it records when the connection is
 * made. Node has no getsockopt(2), so a short program is asked that inherits the socket: perl, which each Debian has,
 * or python3, which each Red Hat has.
 */
import { spawn } from "node:child_process";
import type { Socket } from "node:net";

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  /** Empty where the user has no name. */
  readonly user: string;
}

/** SOL_SOCKET and SO_PEERCRED of Linux on x86 are 1 and 17. */
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

/** One that hangs, on a directory of users in the network, keeps nobody waiting for longer. */
const ANSWERS_WITHIN_MS = 5000;
/** A pid, a uid and a name. */
const ANSWER_MAX = 300;

/** Programs at the same time; whoever connects more often waits. */
const AT_ONCE = 2;
const waiting: (() => void)[] = [];
let running = 0;

/** @returns undefined where the host has neither program, or the program gives no answer in time. It never rejects. */
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
 * Node tells nobody the descriptor of a socket, and a socket that is itself given to a child is taken from this process
 * (child_process.spawn() stops its reading for good). @returns undefined for a closed socket
 */
function descriptorOf(socket: Socket): number | undefined {
  const handle: unknown = Reflect.get(socket, "_handle");
  const fd: unknown = typeof handle === "object" && handle !== null ? Reflect.get(handle, "fd") : undefined;
  return typeof fd === "number" && fd >= 0 ? fd : undefined;
}
