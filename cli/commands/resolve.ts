import { type Command, Option } from "commander";
import type { Run } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { jsonLine } from "../json.ts";
import { summaryText } from "../migration-summary.ts";

const HELP = `
Only after making sure, by other means than Ferry, that the guest does not and will not run on the other host:
keeping a guest that also runs elsewhere destroys its disks.`;

export function addResolve(program: Command, run: Run): void {
  program
    .command("resolve")
    .argument("<id>", "migration in doubt")
    .addOption(
      new Option("--keep <where>", "where the guest is to run")
        .choices(["source", "destination"])
        .makeOptionMandatory(),
    )
    .description("end a migration that is in doubt, by your word")
    .addHelpText("after", HELP)
    .action((id: string, { keep }: { keep: "source" | "destination" }, command: Command) =>
      run(command, async ({ client, options, terminal }) => {
        const view = await client.resolve(id, keep);
        terminal.out(options.json ? jsonLine(view) : summaryText(view));
        return EXIT.ok;
      }),
    );
}
