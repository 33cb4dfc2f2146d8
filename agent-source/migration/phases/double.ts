/** The state *doubled*: the guest runs at both hosts, because somebody other than the agents has started it. */
import { MigrationFault } from "../../../shared/fault.ts";
import type { Standing } from "../../../shared/protocol/destination-states.ts";
import type { SavedSettings } from "../../../shared/protocol/ownership.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import type { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { orAborted } from "../../../shared/runtime/deferred.ts";
import { writeAtLast } from "../../../shared/runtime/journal/write-at-last.ts";
import { restoreSettings } from "../../guest/qemu-settings.ts";
import { askOnce } from "../ask-destination.ts";
import { GUEST_RUNS_HERE, keptRecord, type SourceContext, sourceRecord } from "../source-context.ts";
import { grantedOf, isOfPostcopy, keptOf, type State } from "../source-state.ts";
import { ranTwice } from "../two-copies.ts";
import { doubtful } from "./grant.ts";

/** The pause between two looks at both copies, milliseconds. */
const LOOKS_EVERY_MS = 1000;
/** Standings that say that the destination has no copy any more. */
const ENDED: readonly Standing[] = ["lost", "refused"];

type Ends = State<"releasing"> | State<"withdrawing"> | State<"inDoubt">;

/**
 * Reports the two copies for as long as there are two. The agent ends neither copy by itself: only an operator knows
 * which copy has the work that must not be lost.
 */
export async function double(state: State<"doubled">, cx: SourceContext): Promise<Ends> {
  const { fault } = state;
  cx.report.failed(fault, "");
  cx.log.fatal({ code: fault.code, guest: cx.call.guest, advice: fault.advice }, `TWO COPIES: ${fault.message}`);
  // an agent that starts again then finds `granted`, asks the destination, and comes back to this state
  const record = sourceRecord(cx, "granted", keptOf(state));
  const otherwise = "an agent that starts again may not see both copies";
  await writeAtLast(cx.journal, cx.id, record, { ...cx, otherwise });
  const first = await cx.words.askBeside("doubled", cx.leaving, (signal) => untilOneEnds(state, cx, signal));
  cx.report.cleared();
  // the next state gets the session, which holds QEMU's monitor: the monitor serves no second client
  const granted = grantedOf(state);
  switch (first) {
    case "source ended":
      return { kind: afterSource("doubled", "sourceEnded"), ...granted };
    case "both ended":
      return { kind: afterSource("doubled", "bothEnded"), ...granted, fault: bothEnded(cx) };
    case "destination ended":
      return { kind: afterSource("doubled", "destinationEnded"), fault: await keepAsItIs(state, cx) };
    case "source":
      cx.log.warn("the operator keeps the copy at the source, and says that the copy at the destination has ended");
      return { kind: afterSource("doubled", "keepSource"), fault: await keepAsItIs(state, cx) };
    case "destination":
      cx.log.warn("the operator ends the copy that runs at the source");
      return { kind: afterSource("doubled", "keepDestination"), ...granted, overruled: true };
  }
}

/**
 * Leaves the copy here as it is, and writes `kept`. Only QEMU's migration settings are put back: a guest that runs
 * needs no `cont`, and a guest that its operator has paused gets none.
 * @returns why the migration has failed, with where the guest is
 */
async function keepAsItIs(state: State<"doubled">, cx: SourceContext): Promise<MigrationFault> {
  const session = state.loaded?.session;
  const { settings } = keptOf(state);
  const qmp = session?.qmp;
  const sight = await cx.qemu.look(isOfPostcopy(state), qmp);
  await session?.stop();
  if (settings !== undefined && sight.own === "active") await restore(settings, cx, qmp);
  qmp?.close();
  const guestNow = sight.anotherRuns
    ? "the guest runs at the source, in a QEMU that was started beside this migration"
    : sight.status === "running"
      ? GUEST_RUNS_HERE
      : `the guest is at the source, and its QEMU says that it is ${sight.status}`;
  const fault = ranTwice(cx).with({ guestNow });
  const otherwise = "the next start of this agent would ask the destination again";
  await writeAtLast(cx.journal, cx.id, keptRecord(cx, fault, true), { ...cx, otherwise });
  return fault;
}

async function restore(settings: SavedSettings, cx: SourceContext, known: QmpClient | undefined): Promise<void> {
  const qmp = known?.isOpen ? known : await cx.qemu.connect().catch(() => undefined);
  if (qmp === undefined) return;
  await restoreSettings(qmp, settings).catch((thrown: unknown) =>
    cx.log.warn({ fault: MigrationFault.from(thrown).message }, "QEMU's migration settings are not as they were found"),
  );
  qmp.close();
}

type Ended = "source ended" | "destination ended" | "both ended";

const bothEnded = (cx: SourceContext): MigrationFault =>
  doubtful(
    cx,
    "it ran at both hosts, and does not run here any more; the copy that is paused here, if any, may be older than what ran at either host",
  );

/**
 * Waits until one copy has ended. A copy that is only paused has not ended: its operator decides what becomes of it.
 */
async function untilOneEnds(state: State<"doubled">, cx: SourceContext, signal: AbortSignal): Promise<Ended> {
  const isPostcopy = isOfPostcopy(state);
  let ranHere = false;
  while (true) {
    const { own, status, anotherRuns } = await cx.qemu.look(isPostcopy, state.loaded?.session.qmp);
    ranHere ||= status === "running";
    const standing = await askOnce(cx, "standing", signal).then(
      (answer) => answer.standing,
      () => undefined,
    );
    if (own !== "unknown" && standing !== undefined) {
      const isPausedHere = ranHere && status === "paused";
      const isHere = own === "active" || isPausedHere || anotherRuns;
      if (ENDED.includes(standing)) return isHere ? "destination ended" : "both ended";
      if (standing === "running" && !isHere) return "source ended";
      // the guest there misses pages, which the QEMU here has: *inDoubt* asks the destination, and goes on to *serving*
      if (standing === "pulling" && !isHere) return "both ended";
    }
    await orAborted(cx.clock.sleep(LOOKS_EVERY_MS), signal);
  }
}
