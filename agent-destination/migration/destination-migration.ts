/**
 * Drives one incoming migration through its states. This is the only place where its state changes.
 */
import { setTimeout as delay } from "node:timers/promises";
import { MigrationFault } from "../../shared/fault.ts";
import { afterDestination } from "../../shared/protocol/destination-states.ts";
import type { DestinationContext } from "./destination-context.ts";
import {
  type DestinationState,
  type Next,
  type Phases,
  type State,
  type Undo,
  undoWhole,
} from "./destination-state.ts";
import { adopt } from "./phases/adopt.ts";
import { awaitGrant } from "./phases/await-grant.ts";
import { discard } from "./phases/discard.ts";
import { load } from "./phases/load.ts";
import { negotiate } from "./phases/negotiate.ts";
import { own } from "./phases/own.ts";
import { pull } from "./phases/pull.ts";
import { receive } from "./phases/receive.ts";
import { refuse, withhold } from "./phases/refuse.ts";
import { stage } from "./phases/stage.ts";
import { start } from "./phases/start.ts";

const PHASES: Phases = {
  adopting: adopt,
  negotiating: negotiate,
  staging: stage,
  receiving: receive,
  loading: load,
  loaded: awaitGrant,
  owning: own,
  starting: start,
  pulling: pull,
  refusing: refuse,
  withheld: withhold,
  discarding: discard,
};

type Final = State<"arrived"> | State<"lost"> | State<"discarded"> | State<"doubled">;
type Live = Exclude<DestinationState, Final>;

/** The pause before a state is tried again, milliseconds, so that a fault that lasts does not occupy the processor. */
const AGAIN_MS = 500;

/**
 * Runs an incoming migration to its end: the guest runs here (arrived), was started and has ended (lost), or nothing is
 * left (discarded). Never rejects.
 * @param changed is called with each state that is entered
 */
export async function runDestinationMigration(
  cx: DestinationContext,
  from: DestinationState,
  changed: (state: DestinationState) => void,
): Promise<void> {
  let state = from;
  changed(state);
  while (!isFinal(state)) {
    await cx.faults.at(state.kind, cx.log);
    const next = await step(state, cx);
    if (next === undefined) return;
    if (next.kind === state.kind) await delay(AGAIN_MS);
    state = next;
    changed(state);
    cx.log.info({ state: state.kind }, "state");
  }
}

const isFinal = (state: DestinationState): state is Final =>
  state.kind === "arrived" || state.kind === "lost" || state.kind === "discarded" || state.kind === "doubled";

/** States that are left to the next agent: the first list as soon as this agent stops, the second when it leaves. */
const LEFT_AT_ONCE: readonly DestinationState["kind"][] = ["adopting", "loaded", "withheld"];
const LEFT_AT_LAST: readonly DestinationState["kind"][] = ["starting", "pulling", "owning", "refusing"];

/** @returns undefined when the agent is leaving in the middle of it */
async function step(state: Live, cx: DestinationContext): Promise<DestinationState | undefined> {
  try {
    return await enter(state, cx);
  } catch (thrown) {
    if (cx.stopping.aborted && LEFT_AT_ONCE.includes(state.kind)) return undefined;
    if (cx.leaving.aborted && LEFT_AT_LAST.includes(state.kind)) return undefined;
    const fault = MigrationFault.from(thrown);
    const { guest } = guestOf(state);
    return afterFault(state, (await guest?.explain(fault)) ?? fault, cx);
  }
}

function enter(state: Live, cx: DestinationContext): Promise<Next<Live["kind"]>> {
  switch (state.kind) {
    case "adopting":
      return PHASES.adopting(state, cx);
    case "negotiating":
      return PHASES.negotiating(state, cx);
    case "staging":
      return PHASES.staging(state, cx);
    case "receiving":
      return PHASES.receiving(state, cx);
    case "loading":
      return PHASES.loading(state, cx);
    case "loaded":
      return PHASES.loaded(state, cx);
    case "owning":
      return PHASES.owning(state, cx);
    case "starting":
      return PHASES.starting(state, cx);
    case "pulling":
      return PHASES.pulling(state, cx);
    case "refusing":
      return PHASES.refusing(state, cx);
    case "withheld":
      return PHASES.withheld(state, cx);
    case "discarding":
      return PHASES.discarding(state, cx);
  }
}

/** The QEMU of a state before the guest is whole here, whose end is what ends the migration. */
function guestOf(state: Live): Pick<Undo, "guest"> {
  switch (state.kind) {
    case "staging":
    case "receiving":
    case "loading":
      return { guest: state.guest };
    default:
      return {};
  }
}

/** What a fault leads to is the table's word; what the next state holds is gathered here. */
function afterFault(state: Live, fault: MigrationFault, cx: DestinationContext): DestinationState {
  cx.log.warn({ state: state.kind, code: fault.code, fault: fault.message }, "fault");
  switch (state.kind) {
    case "owning":
      return {
        kind: afterDestination(state.kind, "fault"),
        fault,
        undo: undoWhole(state),
        isWhole: state.postcopy === undefined,
        mayBeRunning: true,
      };
    case "loading":
      return {
        kind: afterDestination(state.kind, "fault"),
        fault,
        undo: undoOf(state),
        // in post-copy the QEMU has the devices, and misses pages
        isWhole: state.receiver.postcopy?.isActive === true ? false : undefined,
        mayBeRunning: false,
      };
    case "adopting":
      return { ...state, kind: afterDestination(state.kind, "fault") };
    case "loaded":
      return { ...state, kind: afterDestination(state.kind, "fault") };
    case "starting":
      return { ...state, kind: afterDestination(state.kind, "fault") };
    case "pulling":
      return { ...state, kind: afterDestination(state.kind, "fault") };
    case "refusing":
      return { ...state, kind: afterDestination(state.kind, "fault") };
    case "withheld":
      return { ...state, kind: afterDestination(state.kind, "fault") };
    case "discarding":
      // what cannot be discarded is reported and left to the next start of the agent
      return { kind: afterDestination(state.kind, "fault"), fault };
    default:
      return { kind: afterDestination(state.kind, "fault"), fault, undo: undoOf(state), refused: false };
  }
}

function undoOf(state: State<"negotiating"> | State<"staging"> | State<"receiving"> | State<"loading">): Undo {
  switch (state.kind) {
    case "negotiating":
      return {};
    case "staging":
      return { guest: state.guest };
    default:
      return { guest: state.guest, receiver: state.receiver };
  }
}
