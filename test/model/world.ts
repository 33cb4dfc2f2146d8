/**
 * The world of the hand-over, for an exhaustive search: what both agents, both journals, all QEMUs of one guest and the
 * network are at one moment. The agents are the project's own transition functions (shared/protocol); what a world adds
 * to them is what may happen to them from outside.
 */
import type { DestinationStateName } from "../../shared/protocol/destination-states.ts";
import type { SourceStateName } from "../../shared/protocol/source-states.ts";

/** `down`: the agent's process is not there; `off`: its whole host is not. */
export type AgentAt<State> = State | "down" | "off";

/**
 * `retiring`: `plan` with its note; `withdrawn`: `granted` with its note; `untold`: `kept`, which the destination has
 * not heard.
 */
export const SOURCE_JOURNALS = ["plan", "retiring", "granted", "withdrawn", "released", "untold", "kept"] as const;
/**
 * `none`: the record was taken away, so that nothing is known; `ungranted` and `heard`: `running` and `refused`, with
 * their notes.
 */
export const DESTINATION_JOURNALS = [
  "none",
  "waiting",
  "running",
  "ungranted",
  "arrived",
  "unowned",
  "refused",
  "heard",
] as const;

/**
 * The QEMU that the source's record names. `final`: stopped by its migration, and again what it was before when its
 * socket closes; `retired`: never runs the guest by itself again; `moved`: somebody else has migrated it away; `reset`:
 * somebody has reset it, so that it waits without a guest.
 */
export const SOURCE_QEMUS = ["running", "final", "paused", "retired", "moved", "reset", "gone"] as const;
/** The QEMU that the destination's record names; `stopped`: it has run, and somebody has said `stop`. */
export const DESTINATION_QEMUS = ["loading", "loaded", "running", "stopped", "moved", "gone"] as const;

/**
 * Whether a copy is not the newest one. `excused`: it became so by somebody else, who left the agent that starts it no
 * way to know; `unseen`: by somebody else, and an agent could still see it; `known`: an agent or an operator has made
 * it so, or has seen it.
 */
export const STALE = ["no", "excused", "unseen", "known"] as const;
export type Stale = (typeof STALE)[number];

/** A message in the network: `false` ones say what is not so, as a rule that is left out makes an agent say them. */
export type Said = "no" | "true" | "false";
/** `kept`: the source has the guest in its journal; `empty`: the same, of a source that has not, and has not run it. */
export type Withdrawal = "no" | "true" | "empty" | "kept" | "keptEmpty";

export interface World {
  readonly source: AgentAt<SourceStateName>;
  readonly sourceJournal: (typeof SOURCE_JOURNALS)[number];
  readonly sourceQemu: (typeof SOURCE_QEMUS)[number];
  /** Another process that runs the guest at the source's host. */
  readonly sourceOther: boolean;
  /** What this life of the source agent has learnt: the grant was refused, or an operator has said so. */
  readonly because: "none" | "withdrew" | "refused" | "word";
  /** The operator's word at the source, checked and not taken yet. */
  readonly word: "none" | "source" | "destination" | "pulling";
  readonly destination: AgentAt<DestinationStateName>;
  readonly destinationJournal: (typeof DESTINATION_JOURNALS)[number];
  readonly destinationQemu: (typeof DESTINATION_QEMUS)[number];
  /** The mark of a refusal is in that QEMU. */
  readonly marked: boolean;
  readonly destinationOther: boolean;
  /** `cont` at the destination is refused, as by a lock on an image. */
  readonly locked: boolean;
  /** Post-copy: pages of the guest are only at the source. */
  readonly missing: boolean;
  /** Post-copy: the page stream is broken, and QEMU's main loop may wait for a page. */
  readonly cut: boolean;
  /** Post-copy: the program that holds QEMU's monitor has ended. */
  readonly keeperGone: boolean;
  /**
   * Post-copy: the keeper and the agent have both ended while QEMU's main loop waited for a page, so that QEMU answers
   * no new client.
   */
  readonly mute: boolean;
  /** The network: each message may be taken any number of times until it is lost for good. */
  readonly loaded: boolean;
  readonly grant: boolean;
  readonly withdraw: Withdrawal;
  readonly running: Said;
  readonly pulling: boolean;
  readonly refused: boolean;
  readonly sourceStale: Stale;
  readonly destinationStale: Stale;
  readonly sourceDiskFull: boolean;
  readonly destinationDiskFull: boolean;
  /** An agent has said that the guest runs twice. */
  readonly shown: boolean;
  /** An operator has said what was wrong: which of two copies may run is no longer the agents' to tell. */
  readonly overruled: boolean;
  /** An operator has given copies up, or the last step of a loss was a fault's own. */
  readonly lossExcused: boolean;
  /** What may still happen in this run. */
  readonly faults: number;
  readonly acts: number;
  readonly wrongWords: number;
}

/** How a guest is handed over; the same for all worlds of a search. */
export type Manner = "precopy" | "paused" | "postcopy";

/** Of a budget that never ends. */
export const UNLIMITED = 9;

/**
 * `normal`: comes to pass when nothing else does; `chance`: may come to pass, and nothing may wait for it; the others
 * are taken from a budget of the run: faults of machines, acts of somebody else, wrong words of an operator.
 */
export type StepKind = "normal" | "chance" | "fault" | "act" | "wrong";

export interface Step {
  readonly name: string;
  readonly kind: StepKind;
  readonly change: Partial<World>;
  /** The promise that this very step breaks. */
  readonly broken?: string | undefined;
}

export type Add = (name: string, change: Partial<World>, kind?: StepKind, broken?: string | undefined) => void;

export const startOf = (manner: Manner, budget: Pick<World, "faults" | "acts" | "wrongWords">): World => ({
  source: "copying",
  sourceJournal: "plan",
  sourceQemu: manner === "paused" ? "paused" : "running",
  sourceOther: false,
  because: "none",
  word: "none",
  destination: "loading",
  destinationJournal: "waiting",
  destinationQemu: "loading",
  marked: false,
  destinationOther: false,
  locked: false,
  missing: manner === "postcopy",
  cut: false,
  keeperGone: false,
  mute: false,
  loaded: false,
  grant: false,
  withdraw: "no",
  running: "no",
  pulling: false,
  refused: false,
  sourceStale: "no",
  destinationStale: "no",
  sourceDiskFull: false,
  destinationDiskFull: false,
  shown: false,
  overruled: false,
  lossExcused: false,
  ...budget,
});

/** A source agent that is there, whatever it does. */
export const isUp = (agent: string): boolean => agent !== "down" && agent !== "off";

/** A process that has the guest's memory, and pages that are missing do not make it less. */
export const isLiving = (qemu: World["destinationQemu"]): boolean => qemu !== "gone" && qemu !== "loading";
