/** `ferry watch`: follows a migration to its end. */
import type { Command } from "commander";
import { type CommandContext, conclude, type Run } from "../context.ts";
import { follow } from "../follow.ts";
import { createDisplay } from "../progress-display.ts";

const HELP = `
Watching ends before the migration does when a person is needed: with 4 when it stays in doubt, at once with 5 when the
guest runs at both hosts. The agent goes on in both, and "ferry list" tells when it is over.

Exit codes:
  0  the guest was moved
  1  it was not, or the agent did not answer
  2  usage
  3  it was cancelled
  4  in doubt: see "ferry resolve --help"
  5  the guest runs at both hosts: stop one copy at once
  130  left with Ctrl-C; the migration goes on`;

export function addWatch(program: Command, run: Run): void {
  program
    .command("watch")
    .argument("<id>", "migration")
    .description("follow a migration to its end; Ctrl-C stops watching, not the migration")
    .addHelpText("after", HELP)
    .action((id: string, _options: unknown, command: Command) =>
      run(command, async (cx: CommandContext) => {
        const display = createDisplay(cx.terminal, cx.options.json);
        const followed = await follow((observer, signal) => cx.client.watch(id, observer, signal), {
          ...cx,
          display,
          interruptCancels: false,
        });
        return conclude(cx, followed);
      }),
    );
}
