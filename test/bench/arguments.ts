/** How a benchmark is called: by commander, as the CLI is. Called wrongly it says so, and measures nothing. */
import { Command } from "commander";
import { MigrationFault } from "../../shared/fault.ts";

/** Exit status of a wrong call; 1 is for bars that are not met. */
const CALLED_WRONGLY = 2;

/** A command without options yet. @param script of package.json */
export const benchmark = (script: string): Command =>
  new Command(`npm run ${script} --`)
    .allowExcessArguments(false)
    .showHelpAfterError()
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : CALLED_WRONGLY));

export function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new MigrationFault("configuration", "A whole number from 1 on");
  return value;
}
