/**
 * NAME.qemu.log, the output of a QEMU that an agent started: bounded for as long as that QEMU lives, whether an agent
 * runs or not. A guest can cause output without end, and the file is in memory. A reader of its own, two small programs
 * of the host, keeps the last of it (decision 0052).
 */
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** Most bytes of the file, and of the older one beside it. */
export const LOG_BYTES_MAX = 256 << 10;
/**
 * How long the reader may take to write the last words of a QEMU that has ended, milliseconds, and between two looks.
 */
const WRITES_WITHIN_MS = 5000;
const LOOK_MS = 5;

/**
 * Gone with the guest.
 * @param directory where the agent and this QEMU meet
 */
export const qemuLogPath = (name: string, directory: string): string => join(directory, `${name}.qemu.log`);

/** What was before it, once the file had been full. */
export const olderLog = (logPath: string): string => `${logPath}.1`;
/** The reader removes it when it has written all. */
export const logPipe = (logPath: string): string => `${logPath}.pipe`;

/**
 * The reader; $1: the log. `head` takes no byte more than it writes, and stdbuf makes it write each at once. Where
 * nothing can be written any more it goes on to read: a QEMU that writes to nobody would wait, or fail. The pipe may be
 * another reader's by the end, of the next QEMU of that guest.
 */
const READER = `
log=$1
exec <"$log.pipe" || exit
while stdbuf -o0 head -c ${LOG_BYTES_MAX} >>"$log"; do
  size=$(stat -c %s "$log" 2>/dev/null) || break
  [ "$size" -ge ${LOG_BYTES_MAX} ] && mv -f "$log" "$log.1" && : >"$log" || break
done
cat >/dev/null
[ "$log.pipe" -ef /dev/stdin ] && rm -f "$log.pipe"`;

/**
 * $1: the reader. $2: the log. The rest is the command, which takes the place of this shell: it is the process that was
 * started. A named pipe, not a socket: a command may open /dev/stdout. The reader has a session of its own, and not the
 * mark of the migration, so that it is not ended together with a command before it has written why that has failed.
 */
const SCRIPT = `
reader=$1 log=$2
shift 2
if command -v setsid >/dev/null && rm -f "$log.1" "$log.pipe" && mkfifo -m 600 "$log.pipe"; then
  env -i "PATH=$PATH" setsid /bin/sh -c "$reader" ferry-guest-log "$log" </dev/null >/dev/null 2>&1 &
  exec >"$log.pipe" 2>&1
else
  echo "the output of the command is not kept" >&2
  exec >/dev/null 2>&1
fi
exec "$@"`;

type Command = readonly [string, ...string[]];

/**
 * The command that writes into a bounded log what `command` writes. Its own output is to go to the end of that file.
 */
export const withBoundedLog = (command: Command, logPath: string): Command => [
  "/bin/sh",
  "-c",
  SCRIPT,
  "sh",
  READER,
  logPath,
  ...command,
];

/** Resolves when what a command wrote that has ended is in its log, or when that takes too long. */
export async function logIsWritten(logPath: string): Promise<void> {
  const end = performance.now() + WRITES_WITHIN_MS;
  while (existsSync(logPipe(logPath)) && performance.now() < end) await delay(LOOK_MS);
}

export async function removeLog(logPath: string): Promise<void> {
  for (const path of [logPipe(logPath), logPath, olderLog(logPath)]) await rm(path, { force: true });
}
