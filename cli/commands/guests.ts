/** `ferry guests`: lists the guests of the agent's host. */
import type { Command } from "commander";
import type { Run } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { jsonLine } from "../json.ts";
import { guestsText } from "../tables.ts";

export function addGuests(program: Command, run: Run): void {
  program
    .command("guests")
    .description("list the guests of the agent's host and how each stands")
    .action((_options: unknown, command: Command) =>
      run(command, async ({ client, options, terminal }) => {
        const guests = await client.listGuests();
        terminal.out(options.json ? guests.map(jsonLine).join("") : guestsText(guests));
        return EXIT.ok;
      }),
    );
}
