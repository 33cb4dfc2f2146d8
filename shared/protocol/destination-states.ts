/**
 * The states of a migration at its destination, as one table; source-states.ts explains the form.
 *
 * Journal-first: *owning* ends when `running` is on the disk, and only *starting* says `cont`. *refusing* ends when the
 * refusal is as durable as the copy that it refuses: `refused` is on the disk, or a mark is in the QEMU itself, or the
 * QEMU has ended. Only *withheld* and *discarding* tell the source of a refusal. A whole copy is kept until the source
 * has heard the refusal, or an operator ends the copy.
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
  /** Checks the offer against its own definition, host and QEMU. */
  negotiating: { accepted: "staging", fault: "discarding" },
  /** The paused QEMU waits with an open socket; the transfer stream is dialled. */
  staging: { dialled: "receiving", fault: "discarding" },
  /** Frames go to QEMU in strict sequence. */
  receiving: { ended: "loading", fault: "discarding" },
  /**
   * QEMU has every byte and finishes loading, and the agent makes it try to open its images for writing. QEMU may have
   * the whole guest before this agent knows, so *refusing* looks for a whole copy, and a link that breaks is waited
   * out.
   */
  loading: { loaded: "loaded", fault: "refusing" },
  /**
   * QEMU has the whole guest and is paused, and the source knows: the grant may come from here on. Only the source, the
   * end of the QEMU or an operator ends this state. `started`: somebody else said `cont`, so the guest may have run and
   * is never refused any more. The record then says `arrived` (in post-copy `running` with `ungranted`, so that the
   * pages are pulled): nothing was granted that would allow this agent a `cont`.
   */
  loaded: {
    granted: "owning",
    started: "arrived",
    startedPulling: "pulling",
    withdrawn: "refusing",
    gone: "refusing",
    fault: "loaded",
  },
  /** Granted: `running` goes into the journal. */
  owning: { written: "starting", fault: "refusing" },
  /**
   * The guest is started, unless it was granted paused. `declined`: QEMU refused `cont`, which proves that the guest
   * did not run. Nothing else refuses the guest from here on, since it may have run.
   */
  starting: { runs: "arrived", pulls: "pulling", declined: "refusing", gone: "lost", fault: "starting" },
  /** Post-copy: the guest runs here, and its last pages are on their way. */
  pulling: { complete: "arrived", gone: "lost", fault: "pulling" },
  /**
   * The refusal is made durable before the source is told. `empty`: there is no whole copy to keep. `started`: somebody
   * else runs the guest here; nobody has heard of the refusal yet, so it is dropped.
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
  /** The guest runs here, or is paused as it was. */
  arrived: {},
  /** The guest was started, and its QEMU has ended: it may have run. */
  lost: {},
  discarded: {},
  /** Somebody else started a guest that was refused. It runs here, and the agent never ends it. */
  doubled: {},
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

/**
 * What an agent that starts again finds of the very process that its record names:
 * `loading`: it does not have the whole guest;
 * `loaded`: it has the whole guest, paused;
 * `marked`: the same, and the mark of a refusal is in it;
 * `pulling`: it runs, and pages of the guest are missing;
 * `running`: it runs the guest, with all pages;
 * `moved`: it has been the source of a later migration;
 * `started`: it runs or has been a source, and the mark is in it;
 * `gone`: the process has ended.
 * A process that cannot be looked at is none of these.
 */
export type DestinationQemu = "loading" | "loaded" | "marked" | "pulling" | "running" | "moved" | "started" | "gone";

/** Where an agent that starts again takes an incoming migration up, from its last record and its QEMU. */
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
        // somebody's `cont` by hand is no refusal any more
        case "running":
        case "moved":
          return "arrived";
        // what is not whole can never be granted
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
 * What a destination answers a source that asks what became of its grant. `waiting`: loaded and paused, the grant may
 * be repeated or withdrawn; `pulling`: it runs, and pages of it are missing; `lost`: it was started and has ended, so
 * it may have run; `unknown`: no such migration.
 */
export type Standing = "waiting" | "starting" | "pulling" | "running" | "refused" | "lost" | "unknown";

/**
 * What a source says with its question. `standing`: nothing, it only asks how the guest stands. `grant`, `withdraw`: it
 * repeats the grant, or withdraws it. `kept`: the source's journal says that the guest stays there; once this is
 * answered, the source says nothing more.
 */
export type Ask = "standing" | "grant" | "withdraw" | "kept";

/**
 * How a migration stands that this agent knows. Before the guest is loaded nothing can have been granted. While the
 * agent refuses, the refusal is not durable yet, and the source asks again. The standing of *adopting* comes from its
 * record (Incoming.standing).
 * @param ask what the source said with its question. A withheld copy is `refused` to a source that grants or withdraws
 *   it, since that source has a copy of its own. It is `waiting` to a source that only asks, which may have lost its
 *   own copy: an operator then decides. `kept` is answered once nothing is left here that would need to hear it again
 * @param isWhole whether the process of the record lives, with all pages of the guest. A guest that has run and cannot
 *   go on is `lost` to a source that still has a copy
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
