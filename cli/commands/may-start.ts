/** `ferry may-start`: tells a supervisor whether a guest may be started on this host. cli/may-start.ts judges that. */
import { resolve } from "node:path";
import type { Command } from "commander";
import { MigrationFault } from "../../shared/fault.ts";
import { parseDuration } from "../../shared/quantities.ts";
import { isGuestName } from "../../shared/runtime/guest/guest-definition.ts";
import { argument, type LocalContext, type RunHere } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { printable } from "../figures.ts";
import { jsonLine } from "../json.ts";
import { type Judgement, judge, type StateDirectories } from "../may-start.ts";

const HELP = `
For supervisors, before they start the QEMU of a guest that may be somewhere else: a unit of systemd says

  ExecCondition=/usr/local/bin/ferry may-start web --wait 1m

The journals of both agents of this host are read; no agent is asked, and none needs to run. The latest record decides:
a guest that was kept here or has arrived may start, unless its QEMU is there already; one that was moved, granted or
refused, or is under way, may not; one that no journal knows may. Run it as the agents' user, who may read the journals,
and keep --wait shorter than TimeoutStartSec (90 s by default), of which it is a part.

Exit codes:
  0    it may
  1    it may not, and the journals say why; systemd skips the unit
  2    usage; systemd skips the unit too
  255  it may not, since a journal, a record or a process cannot be read; systemd takes the unit for failed`;

const SOURCE_STATE = "/var/lib/ferry/source";
const DESTINATION_STATE = "/var/lib/ferry/destination";
/** The value of `--source-state` or `--destination-state` on a host that does not have the agent of this option. */
const NONE = "none";
/** How often the journals are read while an agent is expected to settle a record, milliseconds. */
const LOOK_MS = 1000;

interface Given {
  readonly sourceState: string;
  readonly destinationState: string;
  readonly wait: number;
}

export function addMayStart(program: Command, run: RunHere, env: NodeJS.ProcessEnv): void {
  program
    .command("may-start")
    .argument("<guest>", "name of its definition", argument(guestName))
    .option(
      "--source-state <directory>",
      `journal of ferry-source, or ${NONE} (FERRY_SOURCE_STATE)`,
      env.FERRY_SOURCE_STATE || SOURCE_STATE,
    )
    .option(
      "--destination-state <directory>",
      `journal of ferry-destination, or ${NONE} (FERRY_DESTINATION_STATE)`,
      env.FERRY_DESTINATION_STATE || DESTINATION_STATE,
    )
    .option(
      "--wait <duration>",
      "how long to wait for an agent that can still settle the migration",
      argument(parseDuration),
      0,
    )
    .description("tell whether a guest may be started on this host, from the journals of its agents")
    .addHelpText("after", HELP)
    .action((guest: string, given: Given, command: Command) =>
      run(command, async (cx) => {
        const directories = { source: place(given.sourceState), destination: place(given.destinationState) };
        const judgement = await judgeWithin(cx, guest, directories, given.wait);
        tell(cx, judgement);
        return exitCode(judgement);
      }),
    );
}

/**
 * Judges every LOOK_MS milliseconds, for `waitMs` milliseconds at most, and as long as an agent can be expected to
 * change the verdict by itself (`passing`).
 * @returns the latest judgement
 */
async function judgeWithin(
  { terminal, sleep }: LocalContext,
  guest: string,
  directories: StateDirectories,
  waitMs: number,
): Promise<Judgement> {
  const endMs = terminal.monotonicMs() + waitMs;
  const never = new AbortController().signal;
  while (true) {
    const judgement = await judge(guest, directories);
    const leftMs = endMs - terminal.monotonicMs();
    if (!judgement.passing || leftMs <= 0) return judgement;
    await sleep(Math.min(LOOK_MS, leftMs), never);
  }
}

function tell({ terminal, options }: LocalContext, judgement: Judgement): void {
  const { guest, may, because, advice } = judgement;
  if (options.json) terminal.out(jsonLine(judgement));
  else terminal.out(`${guest} ${may ? "may" : "may not"} start here: ${printable(because)}\n`);
  if (advice !== undefined) terminal.err(`what to do: ${printable(advice)}\n`);
}

function exitCode({ may, known }: Judgement): ExitCode {
  if (may) return EXIT.ok;
  return known ? EXIT.failed : EXIT.unknown;
}

const place = (directory: string): string | undefined => (directory === NONE ? undefined : resolve(directory));

function guestName(text: string): string {
  if (!isGuestName(text))
    throw new MigrationFault("invalid-argument", `${JSON.stringify(text)} cannot be a guest's name`);
  return text;
}
