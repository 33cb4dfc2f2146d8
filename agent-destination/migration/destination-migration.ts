/**
 * Drives one incoming migration through its states. This is the only place where its state changes
 * (test/architecture.test.ts). Which state may follow which is in shared/protocol/destination-states.ts, and what is
 * done in a state in phases/.
 */
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

/** The states that end a migration. */
type Final = State<"arrived"> | State<"lost"> | State<"discarded"> | State<"doubled">;
type Live = Exclude<DestinationState, Final>;

/** The pause before a state is tried again, milliseconds. Without it, a fault that lasts would occupy the processor. */
const AGAIN_MS = 500;

/**
 * Runs an incoming migration until the guest runs here or is paused as it was granted (*arrived*), was started and has
 * ended (*lost*), was started by somebody other than an agent although it is refused (*doubled*), or nothing is left of
 * it (*discarded*). The function also returns when this agent stops and leaves the migration to the next agent. Never
 * rejects.
 * @param changed is called with each state that is entered, the first one included
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
    if (next.kind === state.kind) await cx.clock.sleep(AGAIN_MS);
    state = next;
    changed(state);
    cx.log.info({ state: state.kind }, "state");
  }
}

const isFinal = (state: DestinationState): state is Final =>
  state.kind === "arrived" || state.kind === "lost" || state.kind === "discarded" || state.kind === "doubled";

/** A migration that fails in one of these states after the agent has begun to stop is left to the next agent. */
const LEFT_AT_ONCE: readonly DestinationState["kind"][] = ["adopting", "loaded", "withheld"];
/** A migration that fails in one of these states is left to the next agent only when this agent leaves (`leaving`). */
const LEFT_AT_LAST: readonly DestinationState["kind"][] = ["starting", "pulling", "owning", "refusing"];

/**
 * Runs the phase of a state.
 * @returns the next state; undefined when the migration is left to the next agent
 */
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

/** Calls the phase of a state. The switch narrows the state to the type that its phase takes. */
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

/**
 * Gives the QEMU of a state in which QEMU still takes the guest; empty for every other state. In such a state QEMU's
 * end is often the cause of a fault, and the last part of QEMU's output, which says why QEMU ended, is added to the
 * fault.
 */
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

/** Makes the state that follows a fault. The table of states names that state; this function gathers its fields. */
function afterFault(state: Live, fault: MigrationFault, cx: DestinationContext): DestinationState {
  cx.log.warn({ state: state.kind, code: fault.code, fault: fault.message }, "a phase failed");
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
        // in post-copy QEMU has the device state and misses pages; otherwise *refusing* asks QEMU whether it has the
        // whole guest
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
      // a QEMU or a file that cannot be removed is reported, and left to the next start of the agent
      return { kind: afterDestination(state.kind, "fault"), fault };
    default:
      return { kind: afterDestination(state.kind, "fault"), fault, undo: undoOf(state), refused: false };
  }
}

/** Gathers what has to be undone after a fault in a state before the guest is loaded. */
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
