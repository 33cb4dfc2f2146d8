/** `ferry resolve`: ends a migration that no agent can settle, by the operator's word. */
import { type Command, Option } from "commander";
import { MigrationFault } from "../../shared/fault.ts";
import type { MigrationStatus, MigrationView, ResolveCall } from "../../shared/protocol/report.ts";
import { type CommandContext, faultText, type Run, tell } from "../context.ts";
import { EXIT, type ExitCode, exitCodeOf } from "../exit-codes.ts";

const HELP = `
The word is said to the agent that holds the copy it is about, which acts on its own copy only. An agent does nothing
against what another agent or a QEMU says; where none can be asked, --yes says that you have made sure by other means.
Two copies of a guest destroy its disks.

At the source, in doubt. The agent asks the destination first.
  --keep source       The guest goes on at the source. --yes, where the destination cannot be asked, knows nothing of the
                      migration, or has started the guest and lost it: it does not run there and never will.
  --keep destination  The copy at the source ends. --yes, where the destination cannot be asked, or does not run the
                      guest: it runs there, or may be gone.

At the source, while the guest runs at both hosts:
  --keep destination  The copy at the source ends. To keep that one instead, end the QEMU at the destination.

At the destination (--agent), in doubt, or refused and kept. Always with --yes. While the source agent can be asked, say
the word there instead, except where the QEMU at the destination answers nobody: only --keep source ends that QEMU.
  --keep destination  The guest runs here. --yes: it does not run at the source and never will.
  --keep source       The copy here ends for good. --yes: the guest is at the source, or may be gone.

Exit codes:
  0  it was done as you said
  1  it was not: the agent refused, needs --yes, or the migration was settled otherwise
  2  usage
  4  still in doubt
  5  the guest runs at both hosts: stop one copy at once`;

interface Given {
  readonly keep: "source" | "destination";
  readonly yes?: true;
}

export function addResolve(program: Command, run: Run): void {
  program
    .command("resolve")
    .argument("<id>", "migration in doubt, or one that a destination holds")
    .addOption(
      new Option("--keep <where>", "where the guest is to run")
        .choices(["source", "destination"])
        .makeOptionMandatory(),
    )
    .option("--yes", "confirm that you have checked what no agent can find out")
    .description("end a migration that no agent can settle, by your word")
    .addHelpText("after", HELP)
    .action((id: string, { keep, yes }: Given, command: Command) =>
      run(command, async (cx) => {
        const view = await resolve(cx, { id, keep, confirmed: yes === true });
        tell(cx, view);
        return exitCodeOfWord(cx, keep, view);
      }),
    );
}

/** Says the word to the agent. When the agent needs a confirmation, the person at the terminal is asked for it. */
async function resolve({ client, terminal }: CommandContext, call: ResolveCall): Promise<MigrationView> {
  try {
    return await client.resolve(call);
  } catch (thrown) {
    const fault = MigrationFault.from(thrown);
    if (fault.code !== "needs-confirmation") throw fault;
    terminal.err(faultText(fault));
    if (!(await terminal.confirm(`Have you made sure, and keep the guest at the ${call.keep}?`))) throw fault;
    return client.resolve({ ...call, confirmed: true });
  }
}

/**
 * The statuses to which each word leads. The status is another one when the word of another operator, or a late answer
 * of the destination, was quicker.
 */
const DONE: Readonly<Record<ResolveCall["keep"], readonly MigrationStatus[]>> = {
  source: ["failed", "cancelled", "undoing"],
  destination: ["moved", "granting", "serving"],
};

function exitCodeOfWord({ terminal }: CommandContext, keep: ResolveCall["keep"], view: MigrationView): ExitCode {
  if (view.status === "inDoubt" || view.status === "doubled") return exitCodeOf(view.status);
  if (DONE[keep].includes(view.status)) return EXIT.ok;
  terminal.err(`ferry: the guest was not kept at the ${keep}: the migration was settled otherwise before\n`);
  return EXIT.failed;
}
