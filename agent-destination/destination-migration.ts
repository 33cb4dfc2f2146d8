/**
 * Drives one incoming migration through its states. This is the only place where its state changes.
 */
import { MigrationFault } from "../shared/fault.ts";
import type { DestinationContext } from "./destination-context.ts";
import type { DestinationState, Next, Phases, State, Undo } from "./destination-state.ts";
import { awaitGrant } from "./phases/await-grant.ts";
import { discard } from "./phases/discard.ts";
import { load } from "./phases/load.ts";
import { negotiate } from "./phases/negotiate.ts";
import { own } from "./phases/own.ts";
import { receive } from "./phases/receive.ts";
import { stage } from "./phases/stage.ts";

const PHASES: Phases = {
  negotiating: negotiate,
  staging: stage,
  receiving: receive,
  loading: load,
  loaded: awaitGrant,
  owning: own,
  discarding: discard,
};

type Live = Exclude<DestinationState, State<"arrived"> | State<"discarded">>;

/** Runs an incoming migration to its end: the guest runs here (arrived), or nothing is left (discarded). Never rejects. */
export async function runDestinationMigration(cx: DestinationContext): Promise<"arrived" | "discarded"> {
  let state: DestinationState = { kind: "negotiating" };
  while (state.kind !== "arrived" && state.kind !== "discarded") {
    state = await step(state, cx);
    cx.log.info({ state: state.kind }, "state");
  }
  return state.kind;
}

async function step(state: Live, cx: DestinationContext): Promise<DestinationState> {
  try {
    return await enter(state, cx);
  } catch (thrown) {
    const fault = MigrationFault.from(thrown);
    cx.log.warn({ state: state.kind, code: fault.code, fault: fault.message }, "fault");
    // what cannot be discarded is reported and left to the next start of the agent
    if (state.kind === "discarding") return { kind: "discarded", fault };
    return {
      kind: "discarding",
      fault,
      undo: undoOf(state),
      refusing: state.kind === "loaded" || state.kind === "owning",
    };
  }
}

function enter(state: Live, cx: DestinationContext): Promise<Next<Live["kind"]>> {
  switch (state.kind) {
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
    case "discarding":
      return PHASES.discarding(state, cx);
  }
}

function undoOf(state: Exclude<Live, State<"discarding">>): Undo {
  switch (state.kind) {
    case "negotiating":
      return {};
    case "staging":
      return { guest: state.guest };
    default:
      return { guest: state.guest, receiver: state.receiver };
  }
}
