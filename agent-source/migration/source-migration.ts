/**
 * Drives one migration through its states. The state changes only here, so each change is logged and announced here
 * too. Up to *recording* every fault leads to *keeping*, and *keeping* ends only when the agent has seen what the guest
 * does. What happens within a state is in phases/.
 */
import { MigrationFault } from "../../shared/fault.ts";
import { afterSource, sourceStatus } from "../../shared/protocol/source-states.ts";
import { copy } from "./phases/copy.ts";
import { double } from "./phases/double.ts";
import { doubt } from "./phases/doubt.ts";
import { doubtful, grant } from "./phases/grant.ts";
import { keep } from "./phases/keep.ts";
import { negotiate } from "./phases/negotiate.ts";
import { orphan } from "./phases/orphan.ts";
import { plan } from "./phases/plan.ts";
import { record } from "./phases/record.ts";
import { release } from "./phases/release.ts";
import { retire } from "./phases/retire.ts";
import { serve } from "./phases/serve.ts";
import { stage } from "./phases/stage.ts";
import { switchOver } from "./phases/switch.ts";
import { withdraw } from "./phases/withdraw.ts";
import { GUEST_RUNS_HERE, type SourceContext } from "./source-context.ts";
import { isEnd, type Next, type Phases, type SourceState, type State, type Undo, undoSession } from "./source-state.ts";

const PHASES: Phases = {
  planned: plan,
  negotiating: negotiate,
  staging: stage,
  copying: copy,
  switching: switchOver,
  retiring: retire,
  recording: record,
  granting: grant,
  inDoubt: doubt,
  serving: serve,
  releasing: release,
  keeping: keep,
  withdrawing: withdraw,
  orphaned: orphan,
  doubled: double,
};

/** The pause before a state is tried again, milliseconds, so that a fault that lasts does not occupy the processor. */
const AGAIN_MS = 500;

/** How a run has ended. `left`: the agent leaves during the migration, and the next agent goes on from the journal. */
export type SourceEnd = "released" | "kept" | "stranded" | "left";

/**
 * Runs a migration to its end. Never rejects.
 * @param changed called after each change of the state
 * @param from the state to begin with: another one than `planned` for a migration from the journal
 */
export async function runSourceMigration(
  cx: SourceContext,
  changed: () => void,
  from: SourceState = { kind: "planned" },
): Promise<SourceEnd> {
  let state = from;
  enterState(state, cx);
  while (!isEnd(state)) {
    await cx.faults.at(state.kind, cx.log);
    const next = await step(state, cx);
    if (next === undefined) return "left";
    if (next.kind === state.kind) await cx.clock.sleep(AGAIN_MS);
    state = next;
    enterState(state, cx);
    changed();
  }
  return state.kind;
}

function enterState(state: SourceState, cx: SourceContext): void {
  const isKept = state.kind === "kept" || state.kind === "withdrawing";
  if (isKept) cx.report.failed(state.fault, GUEST_RUNS_HERE);
  if (state.kind === "stranded") cx.report.failed(state.fault, "");
  cx.report.status = sourceStatus(state.kind, isKept && state.fault.code === "cancelled");
  cx.log.info({ state: state.kind }, "state");
}

/** The states that are not final, with what they hold. */
type Live = Exclude<SourceState, State<"released"> | State<"kept"> | State<"stranded">>;

async function step(state: Live, cx: SourceContext): Promise<SourceState | undefined> {
  try {
    return await enter(state, cx);
  } catch (thrown) {
    if (cx.leaving.aborted) return undefined;
    return afterFault(state, MigrationFault.from(thrown), cx);
  }
}

function enter(state: Live, cx: SourceContext): Promise<Next<Live["kind"]>> {
  switch (state.kind) {
    case "planned":
      return PHASES.planned(state, cx);
    case "negotiating":
      return PHASES.negotiating(state, cx);
    case "staging":
      return PHASES.staging(state, cx);
    case "copying":
      return PHASES.copying(state, cx);
    case "switching":
      return PHASES.switching(state, cx);
    case "retiring":
      return PHASES.retiring(state, cx);
    case "recording":
      return PHASES.recording(state, cx);
    case "granting":
      return PHASES.granting(state, cx);
    case "inDoubt":
      return PHASES.inDoubt(state, cx);
    case "serving":
      return PHASES.serving(state, cx);
    case "releasing":
      return PHASES.releasing(state, cx);
    case "keeping":
      return PHASES.keeping(state, cx);
    case "withdrawing":
      return PHASES.withdrawing(state, cx);
    case "orphaned":
      return PHASES.orphaned(state, cx);
    case "doubled":
      return PHASES.doubled(state, cx);
  }
}

/** Makes the state that follows a fault: the table says which state it is, and this function gathers what it holds. */
function afterFault(state: Live, fault: MigrationFault, cx: SourceContext): SourceState {
  cx.log.warn({ state: state.kind, code: fault.code, fault: fault.message }, "a phase failed");
  switch (state.kind) {
    case "granting":
      return {
        kind: afterSource(state.kind, "fault"),
        loaded: state.loaded,
        paused: state.loaded.session.paused,
        fault: doubtful(cx, fault.message, fault),
      };
    case "inDoubt":
      return { ...state, kind: afterSource(state.kind, "fault"), fault };
    case "serving":
      return { ...state, kind: afterSource(state.kind, "fault") };
    case "releasing":
      return { kind: afterSource(state.kind, "fault") };
    case "keeping":
      return { ...state, kind: afterSource(state.kind, "fault") };
    case "withdrawing":
      return { ...state, kind: afterSource(state.kind, "fault") };
    case "orphaned":
      return { ...state, kind: afterSource(state.kind, "fault") };
    case "doubled":
      return { ...state, kind: afterSource(state.kind, "fault") };
    default:
      return { kind: afterSource(state.kind, "fault"), fault, undo: undoOf(state) };
  }
}

/** The states in which a fault leads to *keeping*. */
type Undoable = Exclude<
  Live,
  State<"keeping" | "inDoubt" | "releasing" | "granting" | "serving" | "withdrawing" | "orphaned" | "doubled">
>;

/** What is common to the states in which the source QEMU was not touched, and no other QEMU has a part of the guest. */
const UNTOUCHED = { touched: false, mayBeWhole: false, isRetired: false, granted: "no" } as const;

function undoOf(state: Undoable): Undo {
  switch (state.kind) {
    case "planned":
      return { ...UNTOUCHED, accepted: false, paused: false };
    case "negotiating":
      return { ...UNTOUCHED, qmp: state.qmp, accepted: false, paused: state.facts.paused };
    case "staging":
      return { ...UNTOUCHED, qmp: state.qmp, accepted: true, paused: state.facts.paused };
    case "copying":
      return undoSession(state.session, "copying");
    case "switching":
      return undoSession(state.session, "whole");
    case "retiring":
      return undoSession(state.loaded.session, "whole");
    case "recording":
      return undoSession(state.loaded.session, "recording");
  }
}
