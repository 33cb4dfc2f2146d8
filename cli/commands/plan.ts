/** `ferry plan`: asks whether and how a guest could be moved. Moves nothing. */
import type { Command } from "commander";
import type { Run } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { jsonLine } from "../json.ts";
import { addMigrateOptions, addPlanOptions, type GivenPlanOptions, planCall } from "../migrate-options.ts";
import { planText } from "../plan-text.ts";

const HELP = `
The guest goes on running. To see what it dirties its memory is read once, and its writes are tracked meanwhile, which
slows it down a little; what that cost is shown. The link is filled for a second. Nothing is sent but padding.

A migration of the same guest to the same place, with --strategy auto and the same other options, does what is
recommended here if it begins within ten minutes.

Exit codes:
  0  it would be taken
  1  it would not, or it could not be looked at
  2  usage`;

export function addPlan(program: Command, run: Run): void {
  const command = addMigrateOptions(program.command("plan").argument("<guest>", "guest on the agent's host"));
  addPlanOptions(command, "how long to look at what the guest dirties (default: 5s)")
    .option("--no-observe", "only ask whether it would be taken, and on what terms; touches nothing")
    .description("ask whether and how a guest could be moved: what each strategy would take, and which one to use")
    .addHelpText("after", HELP)
    .action((guest: string, given: GivenPlanOptions, action: Command) =>
      run(action, async ({ client, options, terminal }) => {
        const plan = await client.plan(planCall(guest, given));
        terminal.out(options.json ? jsonLine(plan) : planText(guest, given.to, plan));
        return plan.accepted ? EXIT.ok : EXIT.failed;
      }),
    );
}
