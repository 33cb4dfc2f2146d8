import type { Command } from "commander";
import { type CommandContext, conclude, type Run } from "../context.ts";
import { follow } from "../follow.ts";
import { createDisplay } from "../progress-display.ts";

export function addWatch(program: Command, run: Run): void {
  program
    .command("watch")
    .argument("<id>", "migration")
    .description("follow a migration to its end; Ctrl-C stops watching, not the migration")
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
