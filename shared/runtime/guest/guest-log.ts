/**
 * NAME.qemu.log, the output of a QEMU that an agent started. A guest can cause output without end, and the file is in
 * memory (/run), so the file is bounded for as long as that QEMU lives, whether an agent runs or not. Each output has a
 * reader of its own, two small programs of the host, which keeps the last of the output
 * (docs/design/guests-and-units.md#the-output-of-a-guest).
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Clock, systemClock } from "../clock.ts";
import { removeLeft } from "../files/remove-left.ts";

/** The most bytes of the log. The older log beside it has at most as many. */
export const LOG_BYTES_MAX = 256 << 10;
/** How long the reader may take to write the last output of a QEMU that has ended, milliseconds. */
const WRITES_WITHIN_MS = 5000;
/** The pause between two looks at the pipe, milliseconds. */
const LOOK_MS = 5;

/**
 * The path of the log, which is removed when the guest has left this host.
 * @param directory the directory in which the agent and this QEMU meet
 */
export const qemuLogPath = (name: string, directory: string): string => join(directory, `${name}.qemu.log`);

/** The path of the older file: a log that was full, and is followed by the present one. */
export const olderLog = (logPath: string): string => `${logPath}.1`;
/** The path of the named pipe to the reader. The reader removes it when everything is written. */
export const logPipe = (logPath: string): string => `${logPath}.pipe`;

/**
 * The reader, a script for the shell; $1 is the log. `head` reads no byte more than it writes, and `stdbuf` makes it
 * write each byte at once. Where nothing can be written any more, the reader keeps reading: without a reader QEMU would
 * wait in its writes, or they would fail. In the end the pipe is removed only if it is still the one that was read,
 * since the guest's next QEMU may have made another.
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
 * The script that starts the reader and then becomes the command. $1 is the reader, $2 is the log, and the rest is the
 * command, which takes the place of this shell, so that it is the process that was started. The output goes to the
 * reader through a named pipe and not a socket, since a command may open /dev/stdout, which fails with a socket. The
 * reader has a session of its own, and not the mark of the migration (FERRY_MIGRATION,
 * agent-destination/guest/command-run.ts) in its environment. So when an agent ends a command that has failed, the
 * reader lives on until it has written why the command failed.
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
 * Makes the command that runs `command` and writes its output into a bounded log. The returned command is a shell, and
 * the shell may write something itself before it starts `command`; the caller has to direct that output to the log too.
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

/** Resolves when the output of a command that has ended is in its log, or after WRITES_WITHIN_MS. */
export async function logIsWritten(logPath: string, clock: Clock = systemClock): Promise<void> {
  const end = clock.monotonicMs() + WRITES_WITHIN_MS;
  while (existsSync(logPipe(logPath)) && clock.monotonicMs() < end) await clock.sleep(LOOK_MS);
}

/** Removes the log, the older file and the pipe. */
export async function removeLog(logPath: string): Promise<void> {
  for (const path of [logPipe(logPath), logPath, olderLog(logPath)]) await removeLeft(path);
}
