/**
 * The command line of a benchmark, which commander parses as it does that of the CLI. A benchmark that is called
 * wrongly says so, and measures nothing.
 */
import { Command } from "commander";
import { MigrationFault } from "../../shared/fault.ts";

/** The exit status of a wrong call. Status 1 is for bars that are not met. */
const CALLED_WRONGLY = 2;

/** Makes a command that has no options yet. @param script the name of the benchmark's script in package.json */
export const benchmark = (script: string): Command =>
  new Command(`npm run ${script} --`)
    .allowExcessArguments(false)
    .showHelpAfterError()
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : CALLED_WRONGLY));

/** Parses a whole number from 1 on. @throws MigrationFault `configuration` for any other text */
export function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new MigrationFault("configuration", "A whole number from 1 on");
  return value;
}
