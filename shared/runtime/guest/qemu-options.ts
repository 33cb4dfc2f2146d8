/**
 * Finds the options in a QEMU's command line with which no guest can come to a host: with them the agent could not
 * watch the QEMU, or the QEMU would wait for a client, or would have a socket whose path is too long. They are looked
 * for when a definition is read, since QEMU itself complains about them late or not at all.
 */
import { socketPathMistake } from "../../socket-path.ts";

/** The options that a definition must not have, and why. */
const FORBIDDEN: Readonly<Record<string, string>> = {
  incoming: "which the destination agent adds",
  S: "which the destination agent adds",
  daemonize: "with which QEMU leaves the process that the destination agent starts and watches",
  preconfig: "with which QEMU waits for commands that no agent gives",
};

/** The options whose value may be a character device in the short form, such as unix:PATH,server=on,wait=off. */
const CHARACTER_DEVICES: readonly string[] = [
  ...["serial", "parallel", "monitor", "qmp", "qmp-pretty", "debugcon", "gdb"],
];

/**
 * The value of `-sandbox` that takes away what a QEMU without privileges can do without (docs/operations.md, "Guests
 * with users of their own").
 */
export const SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/** True for a command without a `-sandbox` that forbids QEMU to start programs. */
export const lacksSandbox = (command: readonly string[]): boolean =>
  !command.some((word, index) => {
    if (optionOf(word) !== "sandbox") return false;
    const [first = "", ...rest] = partsOf(command[index + 1] ?? "");
    const keys = keysOf(first.includes("=") ? [first, ...rest] : [`enable=${first}`, ...rest]);
    return isOn(keys.get("enable") ?? "off") && keys.get("spawn") === "deny";
  });

/** A socket that QEMU makes because of an option. */
interface Socket {
  /** The option as it was written, with its value. */
  readonly written: string;
  /** Path of a unix socket; undefined for another kind of socket. */
  readonly path: string | undefined;
  /** True when QEMU waits there for a client before it starts the guest. */
  readonly waits: boolean;
}

/**
 * Finds every mistake of a command, by the rules of QEMU 8.1 to 10.2.
 * @param command the command line, with `{runtime}` and `{guest}` filled in
 * @param qmp the path of the monitor: QEMU may wait for a client there, since the agent is that client
 */
export function optionMistakes(command: readonly string[], qmp: string): readonly string[] {
  const mistakes: string[] = [];
  for (const [index, word] of command.entries()) {
    const option = optionOf(word);
    const why = option === undefined ? undefined : FORBIDDEN[option];
    if (why !== undefined) mistakes.push(`"command" must not have ${word}, ${why}`);
    const value = command[index + 1];
    if (option === undefined || value === undefined) continue;
    const { written, path, waits } = socketOf(option, word, value) ?? NO_SOCKET;
    const tooLong = path === undefined ? undefined : socketPathMistake(path);
    if (tooLong !== undefined) mistakes.push(`"command" has ${written}, whose path ${tooLong}`);
    if (waits && path !== qmp)
      mistakes.push(
        `"command" has ${written}, with which QEMU waits for a client before it starts the guest; add wait=off`,
      );
  }
  return mistakes;
}

/**
 * Reads the size of a guest's memory from the command line of its definition.
 * @returns bytes, as `-m` says; undefined where `-m` is missing or not understood, so that QEMU decides
 */
export function memoryOf(command: readonly string[]): number | undefined {
  const at = command.findLastIndex((word) => optionOf(word) === "m");
  const [first = "", ...rest] = partsOf(command[at < 0 ? command.length : at + 1] ?? "");
  return sizeOf(first.includes("=") ? keysOf([first, ...rest]).get("size") : first, "M");
}

/** The memory of a guest whose command line has no `-m`, bytes, for most machines of QEMU. */
const DEFAULT_MEMORY_BYTES = 128 << 20;

/**
 * Computes the most memory that the command line of a definition can give to its guest: that of `-m`, and that of each
 * memory backend. A backend that holds the memory of `-m` is counted twice. The memory of video cards and ROMs, a few
 * MiB, is left out.
 * @returns bytes
 */
export function memoryBoundOf(command: readonly string[]): number {
  const backends = command.flatMap((word, index) =>
    optionOf(word) === "object" ? [backendBytes(command[index + 1] ?? "")] : [],
  );
  return backends.reduce((sum, bytes) => sum + bytes, memoryOf(command) ?? DEFAULT_MEMORY_BYTES);
}

/** Reads the size of a memory backend from the value of `-object`. @returns bytes; 0 for another object */
function backendBytes(value: string): number {
  if (value.startsWith("{")) {
    const [, kind] = /"qom-type"\s*:\s*"([^"]*)"/.exec(value) ?? [];
    const [, bytes] = /"size"\s*:\s*(\d+)/.exec(value) ?? [];
    return kind?.startsWith("memory-backend-") ? Number(bytes ?? 0) : 0;
  }
  const [kind = "", ...rest] = partsOf(value);
  if (!/^(?:qom-type=)?memory-backend-/.test(kind)) return 0;
  return sizeOf(keysOf(rest).get("size"), "B") ?? 0;
}

/**
 * Reads a size as QEMU does.
 * @param unit the unit of a number that is written without a unit
 * @returns bytes; undefined for a text that is no size
 */
function sizeOf(text: string | undefined, unit: "B" | "M"): number | undefined {
  const [, digits, given = ""] = /^(\d+(?:\.\d+)?)([BKMGTPE]?)$/i.exec(text ?? "") ?? [];
  if (digits === undefined) return undefined;
  return Math.round(Number(digits) * 1024 ** "BKMGTPE".indexOf(given.toUpperCase() || unit));
}

const NO_SOCKET: Socket = { written: "", path: undefined, waits: false };

/** Finds the name of an option. QEMU takes one dash and two alike. @returns undefined for a word that is no option */
const optionOf = (word: string): string | undefined => /^--?([A-Za-z][\w-]*)$/.exec(word)?.[1];

function socketOf(option: string, word: string, value: string): Socket | undefined {
  const written = `${word} ${value}`;
  if (option === "chardev") {
    const [backend = "", ...rest] = partsOf(value);
    const keys = keysOf(rest);
    return /^(?:backend=)?socket$/.test(backend) ? { written, path: keys.get("path"), waits: waits(keys) } : undefined;
  }
  if (option === "vnc") {
    const [where = ""] = partsOf(value);
    return where.startsWith("unix:") ? { written, path: where.slice("unix:".length), waits: false } : undefined;
  }
  if (option === "netdev") {
    const keys = keysOf(partsOf(value));
    return { written, path: keys.get("addr.path") ?? keys.get("local.path"), waits: false };
  }
  if (!CHARACTER_DEVICES.includes(option)) return undefined;
  const [where = "", ...rest] = partsOf(value.replace(/^mon:/, ""));
  const [, kind, address] = /^(unix|tcp|telnet|tn3270|websocket):(.*)$/s.exec(where) ?? [];
  if (kind === undefined) return undefined;
  // QEMU's stub for gdb waits for no client over TCP, whatever its option says
  const mayWait = option !== "gdb" || kind === "unix";
  return { written, path: kind === "unix" ? address : undefined, waits: mayWait && waits(keysOf(rest)) };
}

/** Splits the value of an option at its commas. Two commas in a row are one comma of a value. */
const partsOf = (value: string): readonly string[] =>
  (value.match(/(?:[^,]|,,)+/gs) ?? []).map((part) => part.replaceAll(",,", ","));

/**
 * Reads the keys in the value of an option. The last of several values of a key counts. In the short form KEY is
 * KEY=on, and noKEY is KEY=off.
 */
function keysOf(parts: readonly string[]): ReadonlyMap<string, string> {
  const keys = new Map<string, string>();
  for (const part of parts) {
    const at = part.indexOf("=");
    if (at >= 0) keys.set(part.slice(0, at), part.slice(at + 1));
    else if (part.startsWith("no")) keys.set(part.slice("no".length), "off");
    else keys.set(part, "on");
  }
  return keys;
}

/** True for a server that waits: QEMU waits for the first client of a server unless it is told not to. */
const waits = (keys: ReadonlyMap<string, string>): boolean =>
  isOn(keys.get("server") ?? "off") && isOn(keys.get("wait") ?? "on");

const isOn = (value: string): boolean => ["on", "yes", "true", "y"].includes(value);
