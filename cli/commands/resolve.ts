import { type Command, Option } from "commander";
import { MigrationFault } from "../../shared/fault.ts";
import type { MigrationView, ResolveCall } from "../../shared/protocol/report.ts";
import { type CommandContext, faultText, type Run } from "../context.ts";
import { exitCodeOf } from "../exit-codes.ts";
import { jsonLine } from "../json.ts";
import { summaryText } from "../migration-summary.ts";

const HELP = `
The agent asks the destination first, and does nothing against its word. Where it cannot be asked, it needs yours:
make sure, by other means than Ferry, that the guest does not and will not run on the other host. Two of it destroy
its disks.`;

interface Given {
  readonly keep: "source" | "destination";
  readonly yes?: true;
}

export function addResolve(program: Command, run: Run): void {
  program
    .command("resolve")
    .argument("<id>", "migration in doubt")
    .addOption(
      new Option("--keep <where>", "where the guest is to run")
        .choices(["source", "destination"])
        .makeOptionMandatory(),
    )
    .option("--yes", "I have made sure of what cannot be asked")
    .description("end a migration that is in doubt, by your word")
    .addHelpText("after", HELP)
    .action((id: string, { keep, yes }: Given, command: Command) =>
      run(command, async (cx) => {
        const view = await resolve(cx, { id, keep, confirmed: yes === true });
        cx.terminal.out(cx.options.json ? jsonLine(view) : summaryText(view));
        // done as it was asked for, whichever way that was
        return view.status === "inDoubt" ? exitCodeOf(view.status) : 0;
      }),
    );
}

/** Asks the person at the terminal when the agent needs more than a word. */
async function resolve({ client, terminal }: CommandContext, call: ResolveCall): Promise<MigrationView> {
  try {
    return await client.resolve(call);
  } catch (thrown) {
    const fault = MigrationFault.from(thrown);
    if (fault.code !== "needs-confirmation") throw fault;
    terminal.err(faultText(fault));
    if (!(await terminal.confirm(`Have you made sure, and keep the guest at the ${call.keep}?`))) throw fault;
    return client.resolve({ ...call, confirmed: true });
  }
}
