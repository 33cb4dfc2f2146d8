/** `ferry list`: lists the migrations that an agent knows of. */
import type { Command } from "commander";
import { alarmText } from "../alarm.ts";
import type { Run } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { jsonLine } from "../json.ts";
import { migrationsText } from "../tables.ts";

const HELP = `
A source agent lists the migrations that leave its host ("to"), a destination agent those that come to it ("from").

Exit codes:
  0  they were listed, whatever they are; --json has the status of each, "inDoubt" among them
  1  the agent did not answer
  2  usage
  5  a guest runs at both hosts: its lines come first, and with --json on standard error; stop one copy at once`;

export function addList(program: Command, run: Run): void {
  program
    .command("list")
    .description("list the migrations that the agent knows of")
    .addHelpText("after", HELP)
    .action((_options: unknown, command: Command) =>
      run(command, async ({ client, options, terminal }) => {
        const views = await client.listMigrations();
        terminal.out(options.json ? views.map(jsonLine).join("") : migrationsText(views));
        // with --json, programs read standard output, so the alarm for people goes to standard error
        if (options.json) terminal.err(alarmText(views));
        return views.some(({ status }) => status === "doubled") ? EXIT.doubled : EXIT.ok;
      }),
    );
}
