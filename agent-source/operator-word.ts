/** `ferry resolve`: what the agent can check of the operator's word, it checks; what it cannot, it asks to be confirmed. */
import { MigrationFault } from "../shared/fault.ts";
import type { SettleAnswer } from "../shared/protocol/messages.ts";
import { askOnce } from "./ask-destination.ts";
import type { SourceContext } from "./source-context.ts";

const ANSWERS_WITHIN_MS = 5000;

/**
 * @throws MigrationFault `not-resolvable` when the destination says otherwise, `needs-confirmation` when it cannot tell
 */
export async function checkWord(cx: SourceContext, keep: "source" | "destination", confirmed: boolean): Promise<void> {
  const answer = await ask(cx, keep);
  if (keep === "source") mayKeepSource(cx, answer, confirmed);
  else mayKeepDestination(cx, answer, confirmed);
}

/** To keep the source the guest is withdrawn: a destination that only waits gives it up, with proof. */
async function ask(cx: SourceContext, keep: "source" | "destination"): Promise<SettleAnswer | MigrationFault> {
  try {
    return await askOnce(cx, keep === "source" ? "withdraw" : "standing", cx.leaving, {
      timeoutMs: ANSWERS_WITHIN_MS,
    });
  } catch (thrown) {
    return MigrationFault.from(thrown);
  }
}

function mayKeepSource(cx: SourceContext, answer: SettleAnswer | MigrationFault, confirmed: boolean): void {
  const standing = answer instanceof MigrationFault ? "unreachable" : answer.standing;
  switch (standing) {
    case "refused":
      return;
    case "running":
    case "pulling":
    case "starting":
      throw new MigrationFault("not-resolvable", `The guest runs at ${cx.call.to}: the destination agent says so`, {
        advice: `ferry resolve ${cx.id} --keep destination; or wait, it is being settled`,
      });
    case "waiting":
      throw new MigrationFault("not-resolvable", `${cx.call.to} is giving the guest up`, {
        advice: "Wait a moment: it is being settled",
      });
    case "lost":
      needConfirmation(
        confirmed,
        `${cx.call.to} started the guest and its QEMU has ended since: what it did there, to its disks too, is not in the copy that is paused here`,
        "Check the guest's disks, then repeat with --yes to let it go on here from the moment of the switchover",
      );
      return;
    case "unknown":
    case "unreachable":
      needConfirmation(
        confirmed,
        `${cx.call.to} ${standing === "unknown" ? "knows nothing of this migration" : "cannot be asked"}: the guest may run there at this moment`,
        "Make sure that it does not and never will (switch that host off, or look at its QEMU), then repeat with --yes",
      );
  }
}

function mayKeepDestination(cx: SourceContext, answer: SettleAnswer | MigrationFault, confirmed: boolean): void {
  const standing = answer instanceof MigrationFault ? "unreachable" : answer.standing;
  switch (standing) {
    case "running":
    case "pulling":
    case "starting":
    case "waiting":
      return;
    case "refused":
      throw new MigrationFault("not-resolvable", `${cx.call.to} refused the guest: it does not run there`, {
        advice: "Wait a moment: the guest is being resumed at the source",
      });
    case "lost":
    case "unknown":
    case "unreachable":
      needConfirmation(
        confirmed,
        `${cx.call.to} ${standing === "lost" ? "started the guest, and its QEMU has ended since" : standing === "unknown" ? "knows nothing of this migration" : "cannot be asked"}: the copy that is paused here may be the only one`,
        "Make sure that the guest runs there, or is meant to be gone, then repeat with --yes to end the copy here",
      );
  }
}

function needConfirmation(confirmed: boolean, message: string, advice: string): void {
  if (!confirmed) throw new MigrationFault("needs-confirmation", message, { advice });
}
