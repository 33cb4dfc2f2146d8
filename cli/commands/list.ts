import type { Command } from "commander";
import type { Run } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { jsonLine } from "../json.ts";
import { migrationsText } from "../tables.ts";

export function addList(program: Command, run: Run): void {
  program
    .command("list")
    .description("list the migrations that the agent knows of")
    .action((_options: unknown, command: Command) =>
      run(command, async ({ client, options, terminal }) => {
        const views = await client.listMigrations();
        terminal.out(options.json ? views.map(jsonLine).join("") : migrationsText(views));
        return EXIT.ok;
      }),
    );
}
