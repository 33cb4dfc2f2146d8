/**
 * Checks an operator's word at the source (`ferry resolve`): the agent checks the word where it can, and asks for
 * `--yes` where it cannot.
 */
import { MigrationFault } from "../../shared/fault.ts";
import type { Standing } from "../../shared/protocol/destination-states.ts";
import { DECIDES_WITHIN_MS, TAKES_UP_WITHIN_MS } from "../../shared/protocol/stream-messages.ts";
import { askOnce } from "../migration/ask-destination.ts";
import type { Word } from "../migration/operator-words.ts";
import type { SourceContext } from "../migration/source-context.ts";

/**
 * How long the destination's answer is waited for, milliseconds. A destination agent that runs has answered by then,
 * also one that has just started again. A shorter wait would take such an agent for one that cannot be asked, and
 * `--yes` would then be enough to start the guest a second time.
 */
const ANSWERS_WITHIN_MS = TAKES_UP_WITHIN_MS + DECIDES_WITHIN_MS + 3000;

/** What the destination answered when it was asked because of a word; `unreachable` where it could not be asked. */
interface Heard {
  readonly standing: Standing | "unreachable";
  readonly reason: string;
}

/**
 * Checks a word in the state that asks for it (cx.words.asker). In *inDoubt* the check of the word `source` withdraws
 * the grant, even if the word is not taken afterwards.
 * @param keep the host whose copy is to live
 * @param confirmed the operator has said `--yes`
 * @throws MigrationFault `not-in-doubt` when no state asks for a word; `not-resolvable` when the destination
 *   contradicts it, or another agent must take it; `needs-confirmation` when no agent can check it
 */
export async function checkResolution(cx: SourceContext, keep: Word, confirmed: boolean): Promise<void> {
  const { asker } = cx.words;
  switch (asker) {
    case undefined:
      throw new MigrationFault("not-in-doubt", `${cx.id} is being settled, and waits for no word at this moment`, {
        advice: "See how it ends with: ferry list",
      });
    case "orphaned":
      return mayBeGivenUp(cx, keep, await ask(cx, "standing"), confirmed);
    case "doubled":
      return endsOneOfTwo(cx, keep, await ask(cx, "standing"), confirmed);
    case "inDoubt":
      // to keep the copy at the source, the grant is withdrawn: a destination that only waits for it then refuses the
      // guest, and its answer is the proof
      if (keep === "source") mayKeepSource(cx, await ask(cx, "withdraw"), confirmed);
      else mayKeepDestination(cx, await ask(cx, "standing"), confirmed);
  }
}

async function ask(cx: SourceContext, question: "standing" | "withdraw"): Promise<Heard> {
  try {
    return await askOnce(cx, question, cx.leaving, { timeoutMs: ANSWERS_WITHIN_MS });
  } catch (thrown) {
    return { standing: "unreachable", reason: MigrationFault.from(thrown).message };
  }
}

/** Answers of a destination where no copy runs, or of which it is not known whether one runs. */
const WITHOUT_COPY: readonly Heard["standing"][] = ["lost", "unknown", "unreachable", "refused"];

/**
 * In *orphaned* the QEMU here ended before the grant. A word at this agent can only give up the copy at the
 * destination.
 */
function mayBeGivenUp(cx: SourceContext, keep: Word, { standing, reason }: Heard, confirmed: boolean): void {
  if (keep === "destination" || !WITHOUT_COPY.includes(standing))
    throw new MigrationFault(
      "not-resolvable",
      `The guest's QEMU here has ended; any copy of the guest that is left is at ${cx.call.to}`,
      {
        advice: `ferry --agent ${cx.call.to} resolve ${cx.id} --keep destination starts the copy there, --keep source ends it`,
      },
    );
  needConfirmation(
    confirmed,
    `${cx.call.to} may have the only copy of the guest (${standing === "unreachable" ? reason : standing})`,
    "Make sure that it does not run there and is not needed, then repeat with --yes: the guest is to be started anew here",
  );
}

/** In *doubled* the agent ends only the copy on its own host, and only by the word `destination`. */
function endsOneOfTwo(cx: SourceContext, keep: Word, { standing }: Heard, confirmed: boolean): void {
  if (keep === "destination") {
    if (standing === "pulling")
      throw new MigrationFault(
        "not-resolvable",
        `The guest at ${cx.call.to} misses pages, which only the QEMU here has`,
        {
          advice: `If the guest runs on this host in a QEMU that was started beside the migration's, end that QEMU (QMP quit, or kill). If the guest has run on here in the migration's own QEMU, the missing pages have changed since: end the copy at ${cx.call.to} (QMP quit there, or kill)`,
        },
      );
    needConfirmation(
      confirmed,
      "The guest runs on this host too. Ending it here loses what it has done here since both copies began to run",
      "Make sure that the copy at the destination is the copy to keep, then repeat with --yes to end the copy here",
    );
    return;
  }
  if (!WITHOUT_COPY.includes(standing))
    throw new MigrationFault("not-resolvable", `The copy at ${cx.call.to} is ended at that host, not from here`, {
      advice: "End its QEMU there (QMP quit); this agent sees that, and the guest stays here",
    });
  needConfirmation(
    confirmed,
    `${cx.call.to} cannot be asked: the guest may still run there`,
    "Make sure that it does not and never will (switch that host off or fence it), then repeat with --yes",
  );
}

function mayKeepSource(cx: SourceContext, { standing, reason }: Heard, confirmed: boolean): void {
  const { to } = cx.call;
  switch (standing) {
    case "refused":
      return;
    case "running":
    case "pulling":
      throw new MigrationFault("not-resolvable", `The guest runs at ${to}: the destination agent says so`, {
        advice: `ferry resolve ${cx.id} --keep destination; or wait, it is being settled`,
      });
    case "starting":
      throw new MigrationFault(
        "not-resolvable",
        `The guest is being started at ${to}, and may run there already (${reason})`,
        {
          advice: `Wait until it runs there or its QEMU there has refused it; where that QEMU is stuck for good, end it first with ferry --agent ${to} resolve ${cx.id} --keep source; where its host hangs, switch that host off and repeat this`,
        },
      );
    case "waiting":
      needConfirmation(
        confirmed,
        `${to} was told to give the guest up and has not made that lasting yet (${reason})`,
        "Wait a moment and repeat; or end the guest's QEMU there, make sure of it, and repeat with --yes",
      );
      return;
    case "lost":
      needConfirmation(
        confirmed,
        `${to} started the guest, and its QEMU has ended since or the guest has moved on: what it did there, to its disks too, is not in the copy that is paused here`,
        "Make sure that it runs nowhere, check its disks, then repeat with --yes to let it go on here from the moment of the switchover",
      );
      return;
    case "unknown":
    case "unreachable":
      needConfirmation(
        confirmed,
        `${to} ${standing === "unknown" ? "knows nothing of this migration" : `cannot be asked (${reason})`}: the guest may run there at this moment`,
        "Make sure that it does not and never will (switch that host off or fence it; that its QEMU is paused now is not enough), then repeat with --yes",
      );
  }
}

function mayKeepDestination(cx: SourceContext, { standing, reason }: Heard, confirmed: boolean): void {
  const { to } = cx.call;
  switch (standing) {
    case "running":
    case "pulling":
      return;
    case "waiting":
      throw new MigrationFault(
        "not-resolvable",
        `The guest waits at ${to}, and has not been started there (${reason})`,
        {
          advice:
            "Wait: this agent repeats the grant, unless the guest is started here; or give the word at the destination agent",
        },
      );
    case "refused":
      throw new MigrationFault("not-resolvable", `${to} refused the guest: it does not run there`, {
        advice: "Wait a moment: the guest is being resumed at the source",
      });
    case "starting":
    case "lost":
    case "unknown":
    case "unreachable":
      needConfirmation(
        confirmed,
        `${to} ${UNPROVEN[standing]}: the copy that is paused here may be the only one`,
        "Make sure that the guest runs there, or is meant to be gone, then repeat with --yes to end the copy here",
      );
  }
}

const UNPROVEN: Readonly<Record<"starting" | "lost" | "unknown" | "unreachable", string>> = {
  starting: "is starting the guest, and has not seen it run",
  lost: "started the guest, and its QEMU has ended since or the guest has moved on",
  unknown: "knows nothing of this migration",
  unreachable: "cannot be asked",
};

function needConfirmation(confirmed: boolean, message: string, advice: string): void {
  if (!confirmed) throw new MigrationFault("needs-confirmation", message, { advice });
}
