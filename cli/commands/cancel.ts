/** `ferry cancel`: cancels a migration, and says how it ended. */
import type { Command } from "commander";
import { type Run, tell } from "../context.ts";
import { EXIT, exitCodeOf } from "../exit-codes.ts";

export function addCancel(program: Command, run: Run): void {
  program
    .command("cancel")
    .argument("<id>", "migration")
    .description("cancel a migration that has not handed the guest over yet; exits with 0 when it was cancelled")
    .action((id: string, _options: unknown, command: Command) =>
      run(command, async (cx) => {
        const view = await cx.client.cancel(id);
        tell(cx, view);
        // this command succeeds when the migration was cancelled, and fails when the migration goes on or has ended in
        // another way
        if (view.status === "cancelled") return EXIT.ok;
        return view.status === "inDoubt" || view.status === "doubled" ? exitCodeOf(view.status) : EXIT.failed;
      }),
    );
}
