/**
 * Drives one migration through its states. This is the only place where a source migration's state changes: each step
 * is logged, shown to the operator and told to the watchers here.
 */
import { MigrationFault } from "../shared/fault.ts";
import { sourceStatus } from "../shared/protocol/source-states.ts";
import { copy } from "./phases/copy.ts";
import { doubt } from "./phases/doubt.ts";
import { grant } from "./phases/grant.ts";
import { keep } from "./phases/keep.ts";
import { negotiate } from "./phases/negotiate.ts";
import { plan } from "./phases/plan.ts";
import { stage } from "./phases/stage.ts";
import { switchOver } from "./phases/switch.ts";
import { GUEST_RUNS_HERE, type SourceContext } from "./source-context.ts";
import type { Next, Phases, SourceState, State, Undo } from "./source-state.ts";

const PHASES: Phases = {
  planned: plan,
  negotiating: negotiate,
  staging: stage,
  copying: copy,
  switching: switchOver,
  granting: grant,
  inDoubt: doubt,
  keeping: keep,
};

/** Runs a migration to its end: the guest runs there (released), or here (kept). Never rejects. */
export async function runSourceMigration(cx: SourceContext, changed: () => void): Promise<"released" | "kept"> {
  let state: SourceState = { kind: "planned" };
  while (state.kind !== "released" && state.kind !== "kept") {
    state = await step(state, cx);
    if (state.kind === "kept") cx.report.failed(state.fault, GUEST_RUNS_HERE);
    cx.report.status = sourceStatus(state.kind, state.kind === "kept" && state.fault.code === "cancelled");
    cx.log.info({ state: state.kind }, "state");
    changed();
  }
  return state.kind;
}

type Live = Exclude<SourceState, State<"released"> | State<"kept">>;

async function step(state: Live, cx: SourceContext): Promise<SourceState> {
  try {
    return await enter(state, cx);
  } catch (thrown) {
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
    case "granting":
      return PHASES.granting(state, cx);
    case "inDoubt":
      return PHASES.inDoubt(state, cx);
    case "keeping":
      return PHASES.keeping(state, cx);
  }
}

/** A fault before the grant keeps the guest here; in *keeping* itself it ends the migration with what is known. */
function afterFault(state: Live, fault: MigrationFault, cx: SourceContext): SourceState {
  cx.log.warn({ state: state.kind, code: fault.code, fault: fault.message }, "fault");
  switch (state.kind) {
    case "keeping":
      return { kind: "kept", fault: state.fault.with({ guestNow: `the guest is at the source; ${fault.message}` }) };
    case "inDoubt":
      return { ...state, fault };
    default:
      return { kind: "keeping", fault, undo: undoOf(state) };
  }
}

function undoOf(state: Exclude<Live, State<"keeping"> | State<"inDoubt">>): Undo {
  switch (state.kind) {
    case "planned":
      return {};
    case "negotiating":
    case "staging":
      return { qmp: state.qmp };
    case "copying":
    case "switching":
    case "granting":
      return { qmp: state.feed.qmp, channel: state.feed.channel, feed: state.feed };
  }
}
