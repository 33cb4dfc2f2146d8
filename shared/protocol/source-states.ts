/**
 * The states of a migration at its source, as one table: state, outcome, next state. The types of the edges, the
 * diagram in docs/states.md, the driver (agent-source/migration/source-migration.ts) and the search for two running
 * guests (test/model/) all use this table. What a state holds and does is not here (agent-source/migration/).
 *
 * Before *switching* the guest runs at the source. Before *retiring* the source QEMU would also run the guest again by
 * itself.
 *
 * Journal-first: *recording* ends with `granted` on the disk, and only *granting* sends the grant (ownership.ts).
 */
import type { MigrationStatus } from "./report.ts";

export const SOURCE_STATES = {
  /** The agent reads the guest's definition, and asks the guest's QEMU what it has. */
  planned: { carriable: "negotiating", fault: "keeping" },
  /** The agent offers the guest to the destination. */
  negotiating: { agreed: "staging", fault: "keeping" },
  /** The destination has a QEMU that waits for the guest, and dials in. The link is measured. */
  staging: { feeding: "copying", fault: "keeping" },
  /** QEMU's stream of dirty pages is captured and sent. The guest runs, or is paused as it was found. */
  copying: { decided: "switching", fault: "keeping" },
  /**
   * QEMU was given SWITCHOVER_ACK and stops the guest. With a paused guest QEMU completes without SWITCHOVER_ACK, and
   * for post-copy the agent stops the guest itself. The rest is sent, and the destination loads it.
   */
  switching: { loaded: "retiring", fault: "keeping" },
  /**
   * The agent says SHUT: the source QEMU ends its migration, and never runs the guest by itself again. In post-copy the
   * QEMU is retired already.
   */
  retiring: { retired: "recording", fault: "keeping" },
  /** The agent writes `granted` into its journal. The grant has not been sent. */
  recording: { written: "granting", fault: "keeping" },
  /** The grant is sent. Only the proof that the destination refuses the grant gives the guest back. */
  granting: { running: "releasing", pulling: "serving", refused: "keeping", fault: "inDoubt" },
  /**
   * The guest was granted, and no answer has come. The agent looks at its own QEMU before each question to the
   * destination (askInDoubt). It repeats the grant only while that QEMU is retired or has ended, and withdraws the
   * grant where somebody has started the guest here. The operator may decide.
   */
  inDoubt: {
    running: "releasing",
    pulling: "serving",
    refused: "keeping",
    keepSource: "keeping",
    keepDestination: "releasing",
    keepPulling: "serving",
    doubled: "doubled",
    fault: "inDoubt",
  },
  /**
   * Post-copy: the guest runs at the destination, and gets the pages that are still here. `lost`: its QEMU there has
   * ended. `silent`: the destination was not heard for too long, or waits for a grant. `broken`: pages are lost here.
   */
  serving: {
    served: "releasing",
    lost: "inDoubt",
    silent: "inDoubt",
    refused: "keeping",
    broken: "stranded",
    fault: "serving",
  },
  /** The guest runs at the destination. The agent writes this into its journal, and ends the QEMU that is left here. */
  releasing: { done: "released", doubled: "doubled", fault: "released" },
  /**
   * The agent makes sure that the guest is here as it was, running or paused, for as long as that takes. `untold`: the
   * destination must still hear that the guest stays here. `gone`: the QEMU here has ended.
   */
  keeping: { done: "kept", untold: "withdrawing", gone: "orphaned", fault: "keeping" },
  /**
   * The guest stays at the source, and the destination is told `kept` until it has heard it. For the operator the
   * migration is over.
   */
  withdrawing: { heard: "kept", doubled: "doubled", fault: "withdrawing" },
  /**
   * The QEMU here ended before the guest was granted, and the destination may have the whole guest. The guest may have
   * run here after it was stopped. This agent cannot prove that the guest did not run, so it grants nothing. An
   * operator decides at the destination, or here if the destination's host does not come back. The agent only asks the
   * destination how it stands, since the copy there is kept for the operator.
   */
  orphaned: { running: "releasing", refused: "kept", keepSource: "withdrawing", fault: "orphaned" },
  /**
   * The guest runs at both hosts, because somebody other than the agents has started it. The agent reports that, and
   * ends neither copy without an operator's word. `sourceEnded`: the copy here has ended, and the destination says that
   * it runs the guest. `destinationEnded`: the copy at the destination has ended, and the copy here is left as it is.
   * `bothEnded`: neither host runs the guest, so its grant is in doubt again.
   */
  doubled: {
    sourceEnded: "releasing",
    destinationEnded: "withdrawing",
    bothEnded: "inDoubt",
    keepSource: "withdrawing",
    keepDestination: "releasing",
    fault: "doubled",
  },
  /** The guest was moved to the destination. */
  released: {},
  /** The guest was not moved: it is at the source, or its QEMU there has ended. */
  kept: {},
  /**
   * The guest runs at the destination until it needs a page that is lost. If the QEMU here has ended, the journal says
   * `released`, since this host has nothing left of the guest. The operator ends what is left at the destination.
   */
  stranded: {},
} as const satisfies Record<string, Readonly<Record<string, string>>>;

type Table = typeof SOURCE_STATES;
export type SourceStateName = keyof Table;
export type SourceOutcome<K extends SourceStateName> = keyof Table[K];
/** The states to which each state may lead; `never` for a final state. */
export type SourceEdges = { [K in SourceStateName]: Table[K][keyof Table[K]] };
/** The states that are not final. */
export type LiveSourceState = { [K in SourceStateName]: SourceEdges[K] extends never ? never : K }[SourceStateName];

/** The transition function. The driver and the phases move a source migration to another state only through it. */
export const afterSource = <K extends SourceStateName, O extends SourceOutcome<K>>(state: K, outcome: O): Table[K][O] =>
  SOURCE_STATES[state][outcome];

/**
 * What an agent finds out about the QEMU of the process that its record names:
 * `active`: the QEMU runs the guest, or holds the guest paused outside of a completed migration;
 * `retired`: the QEMU has completed its migration, and never runs the guest by itself;
 * `gone`: the process has ended;
 * `unknown`: the QEMU cannot be asked now, which proves nothing.
 */
export type SourceQemu = "active" | "retired" | "gone" | "unknown";

/**
 * Tells in which state an agent that starts again goes on with a migration, from the last record and from the QEMU
 * (docs/design/ownership.md#rule-4-granted-is-always-asked-for).
 *
 * A QEMU that runs proves nothing about the grant, since anybody may have said `cont` to it: after `granted` the
 * destination is always asked.
 * @param untold true while the destination has not heard yet that the guest stayed here
 */
export function recoverSource(
  record: "plan" | "granted" | "released" | "kept",
  qemu: SourceQemu,
  untold: boolean,
): "keeping" | "inDoubt" | "releasing" | "withdrawing" | "released" | "kept" {
  switch (record) {
    case "plan":
      return "keeping";
    case "granted":
      return "inDoubt";
    case "released":
      return qemu === "gone" ? "released" : "releasing";
    case "kept":
      return untold ? "withdrawing" : "kept";
  }
}

/**
 * Chooses what an agent in doubt says to the destination, from what it sees on its own host: a grant must never add a
 * second copy. A post-copy guest whose QEMU here has ended has lost the pages that the destination misses, so it can
 * run nowhere. Then the grant is withdrawn, which ends what the destination has of the guest.
 * @param anotherRunsHere true when another QEMU than the migration's own runs the guest on this host
 * @param withdrawn true when the grant was withdrawn before, since the guest was seen to run here. The copy at the
 *   destination is older than what ran here
 * @param isPostcopy true when the destination misses pages, which only the QEMU here has
 */
export function askInDoubt(
  qemu: SourceQemu,
  anotherRunsHere: boolean,
  withdrawn: boolean,
  isPostcopy: boolean,
): "grant" | "withdraw" | "standing" {
  if (qemu === "active" || anotherRunsHere) return "withdraw";
  if (qemu === "gone" && isPostcopy) return "withdraw";
  if (qemu === "unknown") return "standing";
  if (!withdrawn) return "grant";
  return qemu === "retired" ? "withdraw" : "standing";
}

/**
 * Gives the status that an operator sees for a state.
 * @param cancelled true when the operator has cancelled the migration; otherwise a guest that stays at the source means
 *   that the migration has failed
 */
export function sourceStatus(state: SourceStateName, cancelled: boolean): MigrationStatus {
  switch (state) {
    case "planned":
    case "negotiating":
    case "staging":
      return "preparing";
    case "copying":
      return "copying";
    case "switching":
      return "switching";
    case "retiring":
    case "recording":
    case "granting":
    case "releasing":
      return "granting";
    case "serving":
      return "serving";
    case "keeping":
      return "undoing";
    case "inDoubt":
    case "orphaned":
      return "inDoubt";
    case "doubled":
      return "doubled";
    case "released":
      return "moved";
    case "withdrawing":
    case "kept":
      return cancelled ? "cancelled" : "failed";
    case "stranded":
      return "failed";
  }
}
