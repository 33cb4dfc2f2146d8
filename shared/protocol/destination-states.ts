/**
 * The states of a migration at its destination, as one table; see source-states.ts.
 *
 * Journal-first: *owning* ends with `running` on the disk, and only *starting* says `cont`; *refusing* ends with
 * `refused` on the disk, and only *discarding* says so. Where that cannot be written, *removing* ends the QEMU before
 * anything is said: a guest that is no more needs no record to stay off.
 */
export const DESTINATION_STATES = {
  /** Checks the offer against its own definition, host and QEMU. */
  negotiating: { accepted: "staging", fault: "discarding" },
  /** The paused QEMU waits with an open socket; the transfer stream is dialled. */
  staging: { dialled: "receiving", fault: "discarding" },
  /** Frames go to QEMU in strict sequence. */
  receiving: { ended: "loading", fault: "discarding" },
  /** QEMU has every byte and finishes loading. */
  loading: { loaded: "loaded", fault: "discarding" },
  /** QEMU has the whole guest and is paused, and the source knows: a grant may come from here on. */
  loaded: { granted: "owning", fault: "refusing" },
  /** Granted: `running` goes into the journal. */
  owning: { written: "starting", fault: "refusing" },
  /** The guest is started, unless it was granted paused. It is never refused from here on, since it may have run. */
  starting: { runs: "arrived", pulls: "pulling", gone: "lost", fault: "starting" },
  /** Post-copy: the guest runs here, and its last pages are on their way. */
  pulling: { complete: "arrived", gone: "lost", fault: "pulling" },
  /** `refused` goes into the journal, before it is said. */
  refusing: { written: "discarding", fault: "removing" },
  /** The refusal cannot be journalled: the QEMU ends first, then it is said. */
  removing: { done: "discarded", fault: "removing" },
  /** Says so, and ends the QEMU of a migration that will not happen. */
  discarding: { done: "discarded", fault: "discarded" },
  /** The guest runs here, or is paused as it was. */
  arrived: {},
  /** The guest was started, and its QEMU has ended: it may have run. */
  lost: {},
  discarded: {},
} as const satisfies Record<string, Readonly<Record<string, string>>>;

type Table = typeof DESTINATION_STATES;
export type DestinationStateName = keyof Table;
export type DestinationOutcome<K extends DestinationStateName> = keyof Table[K];
export type DestinationEdges = { [K in DestinationStateName]: Table[K][keyof Table[K]] };
export type LiveDestinationState = {
  [K in DestinationStateName]: DestinationEdges[K] extends never ? never : K;
}[DestinationStateName];

/** The transition function: no state of an incoming migration comes about but through it. */
export const afterDestination = <K extends DestinationStateName, O extends DestinationOutcome<K>>(
  state: K,
  outcome: O,
): Table[K][O] => DESTINATION_STATES[state][outcome];

/** What the destination QEMU is found to be doing by an agent that starts again; `loaded`: it has the whole guest, paused; `pulling`: it runs, and pages of it are missing. */
export type DestinationQemu = "loading" | "loaded" | "pulling" | "running" | "gone";

/** Where an agent that starts again takes an incoming migration up, from its last record and what QEMU says. */
export function recoverDestination(
  record: "waiting" | "running" | "arrived" | "refused",
  qemu: DestinationQemu,
): "loaded" | "starting" | "pulling" | "refusing" | "discarding" | "arrived" | "lost" {
  switch (record) {
    case "waiting":
      // somebody's `cont` by hand is no refusal any more; what is not whole can never be granted
      if (qemu === "running" || qemu === "pulling") return qemu === "running" ? "arrived" : "pulling";
      return qemu === "loaded" ? "loaded" : "refusing";
    case "running":
      if (qemu === "running") return "arrived";
      if (qemu === "pulling") return "pulling";
      return qemu === "gone" ? "lost" : "starting";
    case "arrived":
      return "arrived";
    case "refused":
      return "discarding";
  }
}

/**
 * What a destination answers a source that asks what became of its grant. `waiting`: loaded and paused, the grant may be
 * repeated or withdrawn; `pulling`: it runs, and pages of it are missing; `lost`: it was started and has ended, so it may have run; `unknown`: no such migration.
 */
export type Standing = "waiting" | "starting" | "pulling" | "running" | "refused" | "lost" | "unknown";

/** Of a migration under way. Before it is loaded nothing can have been granted. */
export function standingOf(state: DestinationStateName): Standing {
  switch (state) {
    case "negotiating":
    case "staging":
    case "receiving":
    case "loading":
    case "loaded":
      return "waiting";
    case "owning":
    case "starting":
      return "starting";
    case "refusing":
    case "removing":
    case "discarding":
      // not yet said, or about to be: the answer is asked for again
      return "waiting";
    case "pulling":
      return "pulling";
    case "arrived":
      return "running";
    case "lost":
      return "lost";
    case "discarded":
      return "refused";
  }
}
