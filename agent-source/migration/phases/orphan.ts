/**
 * The state *orphaned*: the source QEMU ended before the guest was granted, and the destination may have a whole copy.
 */
import { defined } from "../../../shared/defined.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import { orAborted } from "../../../shared/runtime/deferred.ts";
import { writeAtLast } from "../../../shared/runtime/journal/write-at-last.ts";
import { askOnce } from "../ask-destination.ts";
import { keptRecord, type SourceContext } from "../source-context.ts";
import type { State } from "../source-state.ts";

/** The pause between two questions, milliseconds. */
const ASKS_EVERY_MS = 1000;
const OTHERWISE = "the next start of this agent would ask the destination again";

type Ends = State<"releasing"> | State<"kept"> | State<"withdrawing">;

/**
 * Waits for the destination's answer or for an operator's word. The agent only asks the destination how it stands, and
 * tells it nothing: a destination that has the whole guest keeps it for an operator, and any other destination gives up
 * by itself.
 */
export async function orphan({ fault }: State<"orphaned">, cx: SourceContext): Promise<Ends> {
  const first = await cx.words.askBeside("orphaned", cx.leaving, (signal) => untilDecided(fault, cx, signal));
  if (typeof first !== "string") return first;
  const kept = fault.with({
    guestNow:
      "the guest is gone: its QEMU at the source has ended, and the operator has given up what the destination has",
    advice: "Start the guest anew on this host",
  });
  await writeAtLast(cx.journal, cx.id, keptRecord(cx, kept, true), { ...cx, otherwise: OTHERWISE });
  return { kind: afterSource("orphaned", "keepSource"), fault: kept };
}

/** Asks the destination until it runs the guest, or has no copy that could run. */
async function untilDecided(
  fault: MigrationFault,
  cx: SourceContext,
  signal: AbortSignal,
): Promise<State<"releasing"> | State<"kept">> {
  let last = "";
  let anotherRuns = false;
  const tell = (news: string): void => {
    if (news + anotherRuns === last) return;
    last = news + anotherRuns;
    cx.log.error({ news, anotherRuns }, "the source QEMU has ended before the guest was granted");
    cx.report.failed(orphaned(cx, { cause: fault, news, anotherRuns }), "");
  };
  tell("the destination is being asked whether it holds a copy");
  while (true) {
    try {
      ({ anotherRuns } = await cx.qemu.look(false));
      const { standing, reason, running } = await askOnce(cx, "standing", signal);
      switch (standing) {
        case "running":
        case "pulling":
          cx.report.cleared();
          return {
            kind: afterSource("orphaned", "running"),
            paused: false,
            ...defined({ running }),
          };
        case "refused":
        case "unknown":
        case "lost":
          return await gone(cx, fault, anotherRuns ? `${reason}; another QEMU of the guest runs here` : reason);
        case "waiting":
          tell("the destination holds a copy, paused");
          break;
        case "starting":
          tell("the destination is starting its copy");
      }
    } catch (thrown) {
      if (signal.aborted) throw MigrationFault.from(signal.reason);
      tell(`the destination cannot be asked whether it holds a copy: ${MigrationFault.from(thrown).message}`);
    }
    await orAborted(cx.clock.sleep(ASKS_EVERY_MS), signal);
  }
}

/**
 * Ends the migration when neither host runs the guest. The record is written without `untold`, so that this source
 * never says `kept` to the destination. A destination that has refused the guest and has a whole copy then keeps that
 * copy for an operator.
 */
async function gone(cx: SourceContext, cause: MigrationFault, reason: string): Promise<State<"kept">> {
  const fault = cause.with({
    guestNow: `the guest is gone: its QEMU at the source has ended, and the destination does not run it (${reason})`,
    advice: `See with ferry --agent ${cx.call.to} list whether a whole copy is kept there; else start the guest anew`,
  });
  await writeAtLast(cx.journal, cx.id, keptRecord(cx, fault, false), { ...cx, otherwise: OTHERWISE });
  return { kind: afterSource("orphaned", "refused"), fault };
}

interface Orphaned {
  readonly cause: MigrationFault;
  readonly news: string;
  /** True when a supervisor or an operator has started the guest again on this host, in another QEMU. */
  readonly anotherRuns: boolean;
}

/** Makes the fault that an operator sees while this state lasts. */
function orphaned(cx: SourceContext, { cause, news, anotherRuns }: Orphaned): MigrationFault {
  const resolve = `ferry --agent ${cx.call.to} resolve ${cx.id} --keep`;
  const message = `The guest's QEMU at the source has ended in the switchover: ${news}`;
  if (anotherRuns)
    return new MigrationFault("in-doubt", message, {
      cause,
      guestNow: "another QEMU of the guest, which this migration does not touch, runs here",
      advice: `To keep the QEMU that runs here, end the copy at the destination: ${resolve} source; else end that QEMU first, then: ${resolve} destination`,
    });
  return new MigrationFault("in-doubt", message, {
    cause,
    guestNow:
      "the guest runs nowhere; the copy at the destination, if it is whole, is as it was when the guest was stopped here",
    advice: `If the guest did not run on here after that, start the copy at the destination: ${resolve} destination`,
  });
}
