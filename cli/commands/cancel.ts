import type { Command } from "commander";
import type { Run } from "../context.ts";
import { EXIT, exitCodeOf } from "../exit-codes.ts";
import { jsonLine } from "../json.ts";
import { summaryText } from "../migration-summary.ts";

export function addCancel(program: Command, run: Run): void {
  program
    .command("cancel")
    .argument("<id>", "migration")
    .description("cancel a migration that has not handed the guest over yet; exits with 0 when it was cancelled")
    .action((id: string, _options: unknown, command: Command) =>
      run(command, async ({ client, options, terminal }) => {
        const view = await client.cancel(id);
        terminal.out(options.json ? jsonLine(view) : summaryText(view));
        // here the cancellation is what was asked for; a migration that was quicker is a failure to cancel
        if (view.status === "cancelled") return EXIT.ok;
        return view.status === "inDoubt" ? exitCodeOf(view.status) : EXIT.failed;
      }),
    );
}
