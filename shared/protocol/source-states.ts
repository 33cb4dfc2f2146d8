/**
 * The states of a migration at its source, as one table: state, outcome, next state. The types of the edges, the
 * diagram in docs/, the driver (agent-source/migration/source-migration.ts) and the search for two running guests (test/model/)
 * all use it. Until *switching* the guest runs at the source; until *retiring* its QEMU would also run it again by
 * itself.
 *
 * Journal-first: *recording* ends with `granted` on the disk, and only *granting* sends the grant (ownership.ts).
 */
import type { MigrationStatus } from "./report.ts";

export const SOURCE_STATES = {
  /** Reads the guest's definition and asks its QEMU. */
  planned: { carriable: "negotiating", fault: "keeping" },
  /** Asks the destination. */
  negotiating: { agreed: "staging", fault: "keeping" },
  /** The destination has a waiting QEMU and dials in; the link is measured. */
  staging: { feeding: "copying", fault: "keeping" },
  /** QEMU's feed of dirty pages is on; the guest runs, or is paused as it was found. */
  copying: { decided: "switching", fault: "keeping" },
  /**
   * SWITCHOVER_ACK was given: QEMU stops the guest (one that is paused needs none), the rest is sent, the destination
   * loads it.
   */
  switching: { loaded: "retiring", fault: "keeping" },
  /** SHUT is said: the source QEMU ends its migration and never runs the guest by itself again. */
  retiring: { retired: "recording", fault: "keeping" },
  /** `granted` goes into the journal; nothing was said to anybody yet. */
  recording: { written: "granting", fault: "keeping" },
  /** The grant is sent. Only the proof of its refusal gives the guest back. */
  granting: { running: "releasing", pulling: "serving", refused: "keeping", fault: "inDoubt" },
  /**
   * The guest was granted, and no answer came. The agent looks at its own QEMU before each question to the destination.
   * It repeats the grant only while that QEMU is retired or has ended, and withdraws the grant where somebody has
   * started the guest here. The operator may decide.
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
  /** Post-copy: the guest runs at the destination, and gets the pages that are still here. */
  serving: {
    served: "releasing",
    lost: "inDoubt",
    silent: "inDoubt",
    refused: "keeping",
    broken: "stranded",
    fault: "serving",
  },
  /** The guest runs at the destination: the journal says so, and the QEMU that is left here ends. */
  releasing: { done: "released", doubled: "doubled", fault: "released" },
  /** Makes sure that the guest runs here and nothing is left there; as long as it takes. */
  keeping: { done: "kept", untold: "withdrawing", gone: "orphaned", fault: "keeping" },
  /**
   * The guest stays at the source, and the destination is told `kept` until it has heard it. For the operator the
   * migration is over.
   */
  withdrawing: { heard: "kept", doubled: "doubled", fault: "withdrawing" },
  /**
   * The QEMU here ended before the guest was granted, and the destination may have the whole guest. The guest may have
   * run here after it was stopped, and this agent cannot prove that it did not, so it grants nothing. An operator
   * decides at the destination, or here where that host does not come back. The agent only asks the destination how it
   * stands, since its copy is kept for the operator.
   */
  orphaned: { running: "releasing", refused: "kept", keepSource: "withdrawing", fault: "orphaned" },
  /**
   * The guest runs at both hosts, because somebody other than the agents has started it. The agent reports that, and
   * ends neither copy without an operator's word. `sourceEnded`: the copy here has ended, and the destination says that
   * it runs the guest. `destinationEnded`: the copy at the destination has ended, and the one here is left as it is.
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
  /** The guest runs at the destination. */
  released: {},
  /** The guest is at the source. */
  kept: {},
  /**
   * The guest runs at the destination until it needs a page that is lost. Where the QEMU here has ended, the journal
   * says `released`: this host has nothing left of the guest. The operator ends what is left at the destination.
   */
  stranded: {},
} as const satisfies Record<string, Readonly<Record<string, string>>>;

type Table = typeof SOURCE_STATES;
export type SourceStateName = keyof Table;
export type SourceOutcome<K extends SourceStateName> = keyof Table[K];
/** Where each state may lead; `never` for the final ones. */
export type SourceEdges = { [K in SourceStateName]: Table[K][keyof Table[K]] };
export type LiveSourceState = { [K in SourceStateName]: SourceEdges[K] extends never ? never : K }[SourceStateName];

/** The transition function: no state of a source migration comes about but through it. */
export const afterSource = <K extends SourceStateName, O extends SourceOutcome<K>>(state: K, outcome: O): Table[K][O] =>
  SOURCE_STATES[state][outcome];

/**
 * What an agent finds of the very process that its record names:
 * `active`: it runs the guest, or holds the guest paused outside of a completed migration;
 * `retired`: it has completed its migration, and never runs the guest by itself;
 * `gone`: the process has ended;
 * `unknown`: it cannot be asked now, which proves nothing.
 */
export type SourceQemu = "active" | "retired" | "gone" | "unknown";

/**
 * Tells where an agent that starts again takes a migration up (DESIGN 6, 5), from its last record and its QEMU.
 *
 * A QEMU that runs proves nothing about the grant, since anybody may have said `cont` to it: after `granted` the
 * destination is always asked.
 * @param untold the destination has not heard yet that the guest stayed here
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
 * second copy. A post-copy guest whose QEMU here has ended has lost the pages that the destination misses, so that it
 * can run nowhere: the grant is withdrawn, which ends what the destination has of it.
 * @param anotherRunsHere another QEMU than the migration's own runs the guest on this host
 * @param withdrawn the grant was withdrawn before, since the guest was seen to run here. The copy at the destination is
 *   older than what ran here
 * @param isPostcopy the destination misses pages, which only the QEMU here has
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

/** What the operator sees of a state; `cancelled` tells a kept guest from a failed migration. */
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
