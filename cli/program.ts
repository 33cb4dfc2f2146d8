/** The command line of `ferry`: its global options and its subcommands, each of which has a file in commands/. */
import { Command, CommanderError } from "commander";
import { parseAddress } from "../shared/address.ts";
import { parseDuration } from "../shared/quantities.ts";
import { packageVersion } from "../shared/runtime/version.ts";
import { addCancel } from "./commands/cancel.ts";
import { addGuests } from "./commands/guests.ts";
import { addHeatMap } from "./commands/heatmap.ts";
import { addList } from "./commands/list.ts";
import { addMayStart } from "./commands/may-start.ts";
import { addMigrate } from "./commands/migrate.ts";
import { addPlan } from "./commands/plan.ts";
import { addResolve } from "./commands/resolve.ts";
import { addWatch } from "./commands/watch.ts";
import { argument, createRun, createRunHere, type Surroundings } from "./context.ts";
import { EXIT, type ExitCode } from "./exit-codes.ts";

/** Where a source agent with default settings serves the operators of its host. */
const DEFAULT_AGENT = "unix:/run/ferry/source.sock";
const DEFAULT_TIMEOUT_MS = 60_000;

/** Runs one command line. @param argv the arguments, without node and the program @returns the exit code */
export async function runFerry(argv: readonly string[], surroundings: Surroundings): Promise<ExitCode> {
  let code: ExitCode = EXIT.usage;
  const program = createProgram(surroundings, (given) => {
    code = given;
  });
  try {
    await program.parseAsync(argv, { from: "user" });
    return code;
  } catch (thrown) {
    // commander has already said why it ends; only --help and --version are no mistakes
    if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? EXIT.ok : EXIT.usage;
    throw thrown;
  }
}

function createProgram(surroundings: Surroundings, exit: (code: ExitCode) => void): Command {
  const { terminal, env } = surroundings;
  const program = new Command("ferry")
    .description(
      `Moves running QEMU guests between hosts. Talks to the source agent of the host that a guest runs on.
Asked of a destination agent, list, watch, cancel and resolve are of the migrations that come to its host.`,
    )
    .version(packageVersion())
    .option(
      "--agent <address>",
      "agent, of the source or a destination (FERRY_AGENT)",
      argument(agentAddress),
      env.FERRY_AGENT || DEFAULT_AGENT,
    )
    .option("--tls-ca <file>", "CAs that sign the agents' certificates (FERRY_TLS_CA)", env.FERRY_TLS_CA || undefined)
    .option(
      "--tls-certificate <file>",
      "own certificate (FERRY_TLS_CERTIFICATE)",
      env.FERRY_TLS_CERTIFICATE || undefined,
    )
    .option("--tls-key <file>", "its key (FERRY_TLS_KEY)", env.FERRY_TLS_KEY || undefined)
    .option("--json", "one JSON object a line", false)
    .option("--timeout <duration>", "longest wait for an answer (default: 60s)", argument(parseDuration))
    .configureOutput({ writeOut: terminal.out, writeErr: terminal.err })
    .exitOverride()
    .showHelpAfterError("(ferry --help tells more)");
  program.setOptionValueWithSource("timeout", DEFAULT_TIMEOUT_MS, "default");
  const run = createRun(surroundings, exit);
  for (const add of [addGuests, addPlan, addMigrate, addList, addWatch, addCancel, addHeatMap, addResolve])
    add(program, run);
  addMayStart(program, createRunHere(surroundings, exit), env);
  return program;
}

function agentAddress(text: string): string {
  parseAddress(text);
  return text;
}
