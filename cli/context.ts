/** What the subcommands share: how they reach an agent, speak to the operator, and come to an exit code. */
import type { Command } from "commander";
import { InvalidArgumentError } from "commander";
import { MigrationFault } from "../shared/fault.ts";
import type { MigrationView } from "../shared/protocol/report.ts";
import type { TlsFiles } from "../shared/runtime/files/certificates.ts";
import { alarmText } from "./alarm.ts";
import { EXIT, type ExitCode, exitCodeOf, exitCodeOfFault } from "./exit-codes.ts";
import { printable } from "./figures.ts";
import type { Followed } from "./follow.ts";
import { jsonLine } from "./json.ts";
import { summaryText } from "./migration-summary.ts";
import type { OperatorClient } from "./operator-client.ts";
import type { Terminal } from "./terminal.ts";

/** What `ferry` needs of the process that it runs in. Tests hand in their own. */
export interface Surroundings {
  readonly terminal: Terminal;
  readonly env: NodeJS.ProcessEnv;
  /**
   * Makes a client of the agent at an address.
   * @param tls undefined for a connection in clear
   * @throws MigrationFault `configuration` for files that cannot be used
   */
  readonly connect: (address: string, timeoutMs: number, tls: TlsFiles | undefined) => OperatorClient;
  /** Calls `handler` at every Ctrl-C, until the returned function is called. */
  readonly onInterrupt: (handler: () => void) => () => void;
  /** Resolves after `ms` milliseconds, or as soon as `signal` is aborted. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
}

interface GlobalOptions {
  readonly agent: string;
  readonly json: boolean;
  /** The longest wait for an answer, milliseconds. */
  readonly timeout: number;
  /** The paths of the TLS files. All three are given, or none. */
  readonly tlsCa?: string;
  readonly tlsCertificate?: string;
  readonly tlsKey?: string;
}

/** What a command has to work with when it asks no agent. */
export interface LocalContext extends Surroundings {
  readonly options: GlobalOptions;
}

/** What a command has to work with when it asks an agent. */
export interface CommandContext extends LocalContext {
  readonly client: OperatorClient;
}

/** Runs the work of a command with a connection to an agent. A fault is shown, and decides the exit code. */
export type Run = (command: Command, work: (cx: CommandContext) => Promise<ExitCode>) => Promise<void>;

/** Runs the work of a command that asks no agent. A fault is shown, and decides the exit code. */
export type RunHere = (command: Command, work: (cx: LocalContext) => Promise<ExitCode>) => Promise<void>;

export const createRunHere =
  (surroundings: Surroundings, exit: (code: ExitCode) => void): RunHere =>
  async (command, work) => {
    const options = command.optsWithGlobals<GlobalOptions>();
    try {
      exit(await work({ ...surroundings, options }));
    } catch (thrown) {
      exit(tellFault(surroundings, options, MigrationFault.from(thrown)));
    }
  };

export function createRun(surroundings: Surroundings, exit: (code: ExitCode) => void): Run {
  return async (command, work) => {
    const options = command.optsWithGlobals<GlobalOptions>();
    let client: OperatorClient | undefined;
    try {
      client = surroundings.connect(options.agent, options.timeout, tlsFiles(options));
      exit(await work({ ...surroundings, client, options }));
    } catch (thrown) {
      exit(tellFault(surroundings, options, explain(MigrationFault.from(thrown), options.agent)));
    } finally {
      client?.close();
    }
  };
}

function tellFault({ terminal }: Surroundings, { json }: GlobalOptions, fault: MigrationFault): ExitCode {
  if (json) terminal.out(jsonLine({ error: faultJson(fault) }));
  terminal.err(faultText(fault));
  return exitCodeOfFault(fault);
}

/**
 * Gives the paths of the TLS files; undefined where no such option is given.
 * @throws MigrationFault `invalid-argument` when only some are given: without this fault the connection would be made
 *   in clear
 */
function tlsFiles({ tlsCa: ca, tlsCertificate: certificate, tlsKey: key }: GlobalOptions): TlsFiles | undefined {
  if (ca === undefined && certificate === undefined && key === undefined) return undefined;
  if (ca !== undefined && certificate !== undefined && key !== undefined) return { ca, certificate, key };
  const missing = Object.entries({ "--tls-ca": ca, "--tls-certificate": certificate, "--tls-key": key });
  const names = missing.filter(([, path]) => path === undefined).map(([name]) => name);
  throw new MigrationFault("invalid-argument", `TLS needs ${names.join(" and ")} too`, {
    advice: "Give --tls-ca, --tls-certificate and --tls-key, or FERRY_TLS_CA, FERRY_TLS_CERTIFICATE and FERRY_TLS_KEY",
  });
}

/**
 * Adds the agent's address and advice to the fault of a failed connection, whose message is not about Ferry. A fault
 * that an agent reports has advice of its own.
 */
function explain(fault: MigrationFault, address: string): MigrationFault {
  if (fault.code !== "peer-unreachable" || fault.advice !== undefined) return fault;
  return new MigrationFault(fault.code, `No answer from the agent at ${address}: ${fault.message}`, {
    cause: fault,
    advice: "See that the agent runs there, or name another one with --agent or FERRY_AGENT",
  });
}

export function faultText(fault: MigrationFault): string {
  const lines = [`ferry: ${printable(fault.message)} (${printable(fault.code)})`];
  for (const refusal of fault.refusals) lines.push(`  - ${printable(refusal.code)}: ${printable(refusal.message)}`);
  if (fault.guestNow !== undefined && fault.guestNow !== "") lines.push(`  guest: ${printable(fault.guestNow)}`);
  if (fault.advice !== undefined && fault.advice !== "") lines.push(`  what to do: ${printable(fault.advice)}`);
  return `${lines.join("\n")}\n`;
}

function faultJson(fault: MigrationFault): object {
  const { code, message, guestNow, advice, refusals } = fault;
  return { code, message, guestNow, advice, refusals };
}

/** Says how a followed migration ended. With `--json` its last view was shown already, and only an alarm is added. */
export function conclude(cx: CommandContext, { view, detached }: Followed): ExitCode {
  if (view === undefined) {
    cx.terminal.err("Left before the agent had answered; ferry list tells whether a migration began\n");
    return EXIT.detached;
  }
  if (detached) {
    cx.terminal.err(
      `Migration ${view.id} goes on. Follow it: ferry watch ${view.id}. End it: ferry cancel ${view.id}\n`,
    );
    return EXIT.detached;
  }
  if (cx.options.json) cx.terminal.err(alarmText([view]));
  else cx.terminal.out(summaryText(view));
  return exitCodeOf(view.status);
}

/** Shows how a migration stands, as the result of a command: in words, or as JSON. */
export function tell({ terminal, options }: CommandContext, view: MigrationView): void {
  terminal.out(options.json ? jsonLine(view) : summaryText(view));
  if (options.json) terminal.err(alarmText([view]));
}

/** Turns a parser of Ferry's into one of commander's, which reports a wrong value as a usage error. */
export function argument<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (thrown) {
      const fault = MigrationFault.from(thrown);
      throw new InvalidArgumentError(fault.advice === undefined ? fault.message : `${fault.message}. ${fault.advice}`);
    }
  };
}
