/**
 * The states of a migration at its destination, as one table; source-states.ts explains the form.
 *
 * Journal-first: *owning* ends when `running` is on the disk, and only *starting* says `cont`. *refusing* ends when the
 * refusal is as durable as the copy that it refuses: `refused` is on the disk, or a mark is in the QEMU itself, or the
 * QEMU has ended. Only *withheld* and *discarding* tell the source of a refusal. A whole copy is kept until the source
 * has heard the refusal, or an operator ends the copy (docs/design/ownership.md#refusals-and-copies-that-are-kept).
 */
export const DESTINATION_STATES = {
  /** An agent that starts again looks for the QEMU that its record names, until it can tell what that QEMU does. */
  adopting: {
    loaded: "loaded",
    starting: "starting",
    pulling: "pulling",
    refusing: "refusing",
    withheld: "withheld",
    discarding: "discarding",
    arrived: "arrived",
    lost: "lost",
    doubled: "doubled",
    fault: "adopting",
  },
  /** The agent compares the offer with its own definition of the guest, its host and its QEMU. */
  negotiating: { accepted: "staging", fault: "discarding" },
  /** The paused QEMU waits with an open socket, and the agent dials the transfer stream. */
  staging: { dialled: "receiving", fault: "discarding" },
  /** The agent checks the frames, and writes their content to QEMU in strict sequence. */
  receiving: { ended: "loading", fault: "discarding" },
  /**
   * QEMU has every byte and finishes loading, and the agent makes QEMU try to open its images for writing. QEMU may
   * have the whole guest before this agent knows, so *refusing* looks for a whole copy, and a broken link is no reason
   * to give up.
   */
  loading: { loaded: "loaded", fault: "refusing" },
  /**
   * QEMU has the whole guest and is paused, and the source knows: the grant may come from here on. Only the source, the
   * end of the QEMU or an operator ends this state. `started`: somebody else said `cont`, so the guest may have run and
   * is never refused any more. The record then says `arrived`, or in post-copy `running` with `ungranted`, so that the
   * pages are pulled. Neither record allows this agent a `cont`, since nothing was granted.
   */
  loaded: {
    granted: "owning",
    started: "arrived",
    startedPulling: "pulling",
    withdrawn: "refusing",
    gone: "refusing",
    fault: "loaded",
  },
  /** The guest was granted, or claimed by an operator, and the agent writes `running` into its journal. */
  owning: { written: "starting", fault: "refusing" },
  /**
   * The agent starts the guest, unless it was granted paused. `declined`: QEMU refused `cont`, which proves that the
   * guest did not run. For no other reason is the guest refused from here on, since it may have run.
   */
  starting: { runs: "arrived", pulls: "pulling", declined: "refusing", gone: "lost", fault: "starting" },
  /** Post-copy: the guest runs here, and the pages that it misses are on their way. */
  pulling: { complete: "arrived", gone: "lost", fault: "pulling" },
  /**
   * The agent makes the refusal durable before it tells the source. `empty`: there is no whole copy to keep. `started`:
   * somebody else runs the guest here. The source has not heard of the refusal yet, so the refusal is dropped.
   */
  refusing: {
    written: "withheld",
    empty: "discarding",
    started: "arrived",
    startedPulling: "pulling",
    fault: "refusing",
  },
  /**
   * The guest is refused, and the source is told. The whole copy is kept, for an operator to claim, until the source
   * has heard the refusal.
   */
  withheld: { heard: "discarding", claimed: "owning", gone: "discarding", started: "doubled", fault: "withheld" },
  /**
   * The migration will not happen: the source is told, and the QEMU ends, unless somebody has started the guest in it.
   */
  discarding: { done: "discarded", started: "doubled", fault: "discarded" },
  /** The guest runs here, or is paused as it was granted. */
  arrived: {},
  /** The guest was started, and its QEMU has ended. The guest may have run. */
  lost: {},
  /** The migration did not happen, and its QEMU has ended. */
  discarded: {},
  /** Somebody else started a guest that was refused. It runs here, and the agent never ends it. */
  doubled: {},
} as const satisfies Record<string, Readonly<Record<string, string>>>;

type Table = typeof DESTINATION_STATES;
export type DestinationStateName = keyof Table;
export type DestinationOutcome<K extends DestinationStateName> = keyof Table[K];
/** The states to which each state may lead; `never` for a final state. */
export type DestinationEdges = { [K in DestinationStateName]: Table[K][keyof Table[K]] };
/** The states that are not final. */
export type LiveDestinationState = {
  [K in DestinationStateName]: DestinationEdges[K] extends never ? never : K;
}[DestinationStateName];

/** The transition function. The driver and the phases move an incoming migration to another state only through it. */
export const afterDestination = <K extends DestinationStateName, O extends DestinationOutcome<K>>(
  state: K,
  outcome: O,
): Table[K][O] => DESTINATION_STATES[state][outcome];

/**
 * What an agent that starts again finds out about the QEMU of the process that its record names:
 * `loading`: the QEMU does not have the whole guest;
 * `loaded`: the QEMU has the whole guest, paused; in post-copy pages may be missing;
 * `marked`: as `loaded`, and the mark of a refusal is in the QEMU;
 * `pulling`: the guest was started, and pages of it are missing;
 * `running`: the QEMU runs the guest, with all pages;
 * `moved`: the guest has run, and the QEMU is in another run state, such as `postmigrate` after a later migration;
 * `started`: as `pulling`, `running` or `moved`, and the mark of a refusal is in the QEMU;
 * `gone`: the process has ended.
 * A QEMU that cannot be looked at is none of these: the agent looks again (*adopting*).
 */
export type DestinationQemu = "loading" | "loaded" | "marked" | "pulling" | "running" | "moved" | "started" | "gone";

/**
 * Tells in which state an agent that starts again goes on with an incoming migration, from the last record and from the
 * QEMU (docs/design/ownership.md).
 * @param heard true when no copy needs to be kept any more (`DestinationRecord.heard`)
 */
export function recoverDestination(
  record: "waiting" | "running" | "arrived" | "refused",
  qemu: DestinationQemu,
  heard: boolean,
): "loaded" | "starting" | "pulling" | "refusing" | "withheld" | "discarding" | "arrived" | "lost" | "doubled" {
  switch (record) {
    case "waiting":
      switch (qemu) {
        case "loaded":
        case "pulling":
          return qemu;
        case "marked":
          return "withheld";
        case "started":
          return "doubled";
        // somebody has said `cont` by hand, so the guest may have run and cannot be refused any more
        case "running":
        case "moved":
          return "arrived";
        // a guest that is not whole can never be granted
        case "loading":
        case "gone":
          return "refusing";
      }
      break;
    case "running":
      switch (qemu) {
        case "loading":
        case "loaded":
          return "starting";
        case "marked":
          return "refusing";
        case "started":
          return "doubled";
        case "pulling":
          return "pulling";
        case "running":
        case "moved":
          return "arrived";
        case "gone":
          return "lost";
      }
      break;
    case "arrived":
      return "arrived";
    case "refused":
      if (qemu === "running" || qemu === "pulling" || qemu === "moved" || qemu === "started") return "doubled";
      return (qemu === "loaded" || qemu === "marked") && !heard ? "withheld" : "discarding";
  }
}

/**
 * What a destination answers to a source that asks what became of its grant. `waiting`: nothing is decided, and the
 * source may repeat or withdraw the grant. `starting`: the guest is being started. `pulling`: the guest runs, and pages
 * of it are missing. `running`: the guest runs, or is paused as it was granted. `refused`: the guest is refused.
 * `lost`: the guest was started and its QEMU has ended, so it may have run. `unknown`: there is no such migration.
 */
export type Standing = "waiting" | "starting" | "pulling" | "running" | "refused" | "lost" | "unknown";

/**
 * What a source says with its question. `standing`: the source only asks how the guest stands. `grant`: the source
 * repeats the grant. `withdraw`: the source withdraws the grant. `kept`: the source's journal says that the guest stays
 * at the source; once this is answered, the source says nothing more.
 */
export type Ask = "standing" | "grant" | "withdraw" | "kept";

/**
 * Gives the answer of a destination for a migration that it knows. Before the guest is loaded, nothing can have been
 * granted. In *refusing* the refusal is not durable yet, so the source must ask again. For *adopting* the record
 * decides instead (Incoming.standing in agent-destination/service/incoming.ts).
 * @param ask what the source said with its question. For a withheld copy a source that grants or withdraws hears
 *   `refused`, since it has a copy of its own. A source that only asks hears `waiting`: it may have lost its own copy,
 *   and an operator then decides. A source that says `kept` hears `waiting`, and so says `kept` again, until the copy
 *   here is discarded
 * @param isWhole true when the process of the record lives, and has all pages of the guest. If not, a guest in
 *   *arrived* or *doubled* has run here and cannot go on, so the answer is `lost`: the source may still have a copy
 */
export function standingOf(state: DestinationStateName, ask: Ask, isWhole: boolean): Standing {
  switch (state) {
    case "negotiating":
    case "staging":
    case "receiving":
    case "loading":
    case "loaded":
    case "refusing":
    case "adopting":
      return "waiting";
    case "owning":
    case "starting":
      return "starting";
    case "pulling":
      return "pulling";
    case "arrived":
    case "doubled":
      return isWhole ? "running" : "lost";
    case "lost":
      return "lost";
    case "withheld":
      return ask === "standing" || ask === "kept" ? "waiting" : "refused";
    case "discarding":
      return ask === "kept" ? "waiting" : "refused";
    case "discarded":
      return "refused";
  }
}
