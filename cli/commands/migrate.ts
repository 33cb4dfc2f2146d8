/** `ferry migrate`: moves a guest, and follows the migration to its end unless `--detach` is given. */
import type { Command } from "commander";
import type { MigrateCall, MigrationView } from "../../shared/protocol/report.ts";
import { type CommandContext, conclude, type Run } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { follow } from "../follow.ts";
import { jsonLine } from "../json.ts";
import { addMigrateOptions, addPlanOptions, type GivenPlanOptions, migrateCall, planCall } from "../migrate-options.ts";
import { planText } from "../plan-text.ts";
import { createDisplay } from "../progress-display.ts";

const HELP = `
Ctrl-C cancels the migration and waits for its end; a second Ctrl-C leaves it to itself (ferry watch, ferry cancel).
Losing the connection to the agent does not end the migration either.

Exit codes:
  0  the guest was moved (with --detach: the migration was started)
  1  it failed, and the guest runs at the source
  2  usage
  3  it was cancelled, and the guest runs at the source
  4  in doubt: see "ferry resolve --help"
  5  the guest runs at both hosts: stop one copy at once; the words say which, and "ferry list" whether it is over
  130  left with Ctrl-C; the migration goes on`;

export function addMigrate(program: Command, run: Run): void {
  const command = addMigrateOptions(program.command("migrate").argument("<guest>", "guest on the agent's host"));
  addPlanOptions(
    command,
    "plan first, looking at the guest for so long; then do what is recommended (with --strategy auto)",
  )
    .option("--detach", "return as soon as the migration was started", false)
    .description("move a running guest")
    .addHelpText("after", HELP)
    .action((guest: string, given: GivenPlanOptions & { detach: boolean }, action: Command) =>
      run(action, async (cx) => {
        const call = migrateCall(guest, given);
        if (given.observe !== undefined && !(await planFirst(cx, guest, given))) return EXIT.failed;
        return given.detach ? startOnly(cx, call) : migrate(cx, call);
      }),
    );
}

/**
 * Makes a plan and shows it. The agent remembers the strategy that it recommends, and the migration that follows uses
 * it.
 * @returns true when the destination would take the guest
 */
async function planFirst({ client, options, terminal }: CommandContext, guest: string, given: GivenPlanOptions) {
  const plan = await client.plan(planCall(guest, given));
  terminal.out(options.json ? jsonLine({ plan }) : planText(guest, given.to, plan));
  return plan.accepted;
}

async function migrate(cx: CommandContext, call: MigrateCall): Promise<ExitCode> {
  const display = createDisplay(cx.terminal, cx.options.json);
  const followed = await follow((observer, signal) => cx.client.migrate(call, observer, signal), {
    ...cx,
    display,
    interruptCancels: true,
  });
  return conclude(cx, followed);
}

async function startOnly(cx: CommandContext, call: MigrateCall): Promise<ExitCode> {
  const started = new AbortController();
  let first: MigrationView | undefined;
  try {
    await cx.client.migrate(
      call,
      (view) => {
        first ??= view;
        started.abort();
      },
      started.signal,
    );
  } catch (thrown) {
    // the first view shows that the migration has begun; the call is given up then, so its fault does not count
    if (first === undefined) throw thrown;
  }
  if (first === undefined) return EXIT.failed;
  cx.terminal.out(cx.options.json ? jsonLine(first) : `${first.id}\n`);
  return EXIT.ok;
}
