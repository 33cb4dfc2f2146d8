import type { Command } from "commander";
import type { Run } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { jsonLine } from "../json.ts";
import { addMigrateOptions, type GivenMigrateOptions, migrateCall } from "../migrate-options.ts";
import { planText } from "../tables.ts";

export function addPlan(program: Command, run: Run): void {
  addMigrateOptions(program.command("plan").argument("<guest>", "guest on the agent's host"))
    .description("ask the destination whether it would take a guest, and on what terms; changes nothing")
    .action((guest: string, given: GivenMigrateOptions, command: Command) =>
      run(command, async ({ client, options, terminal }) => {
        const plan = await client.plan(migrateCall(guest, given));
        terminal.out(options.json ? jsonLine(plan) : planText(guest, given.to, plan));
        return plan.accepted ? EXIT.ok : EXIT.failed;
      }),
    );
}
