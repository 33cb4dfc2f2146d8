/**
 * The world of the hand-over, for an exhaustive search: the state of both agents, both journals, all QEMUs of one guest
 * and the network at one moment. The agents act by the project's own transition functions (shared/protocol). The world
 * adds to them what may happen to them from outside.
 */
import type { DestinationStateName } from "../../shared/protocol/destination-states.ts";
import type { SourceStateName } from "../../shared/protocol/source-states.ts";

/** The state of an agent, or `down` where its process is not there, or `off` where its whole host is not. */
type AgentAt<State> = State | "down" | "off";

/**
 * What the source's journal says. `retiring`: `plan` with its note. `withdrawn`: `granted` with its note. `untold`:
 * `kept`, which the destination has not heard.
 */
const SOURCE_JOURNALS = ["plan", "retiring", "granted", "withdrawn", "released", "untold", "kept"] as const;
/**
 * What the destination's journal says. `none`: the record was taken away, so nothing is known. `ungranted` and
 * `unowned`: `running` and `arrived` of a guest that was not granted. `heard`: `refused`, with the note that no copy
 * needs to be kept.
 */
const DESTINATION_JOURNALS = [
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
 * The state of the QEMU that the source's record names. `final`: its migration has stopped the guest, and when its
 * socket closes the guest is what it was before. `retired`: it never runs the guest by itself again. `moved`: somebody
 * else has migrated it away. `reset`: somebody has reset it, so that it waits without a guest.
 */
const SOURCE_QEMUS = ["running", "final", "paused", "retired", "moved", "reset", "gone"] as const;
/** The state of the QEMU that the destination's record names. `stopped`: it has run, and somebody has said `stop`. */
const DESTINATION_QEMUS = ["loading", "loaded", "running", "stopped", "moved", "gone"] as const;

/**
 * Whether a copy is older than the newest one. `excused`: somebody else has made it older, and left the agent that
 * starts it no way to know. `unseen`: somebody else has made it older, and an agent could still see that. `known`: an
 * agent or an operator has made it older, or has seen that.
 */
const STALE = ["no", "excused", "unseen", "known"] as const;
export type Stale = (typeof STALE)[number];

/** A message in the network. `false`: the message says what is not so, as an agent does when a rule is left out. */
type Said = "no" | "true" | "false";
/**
 * A withdrawal in the network. `kept`: the source's journal says that it keeps the guest. `empty` and `keptEmpty`: the
 * source has no copy, and has not run the guest since.
 */
type Withdrawal = "no" | "true" | "empty" | "kept" | "keptEmpty";

export interface World {
  readonly source: AgentAt<SourceStateName>;
  readonly sourceJournal: (typeof SOURCE_JOURNALS)[number];
  readonly sourceQemu: (typeof SOURCE_QEMUS)[number];
  /** True when another process runs the guest at the source's host. */
  readonly sourceOther: boolean;
  /**
   * What this life of the source agent has learnt: the grant was withdrawn or refused, or an operator has said a word.
   */
  readonly because: "none" | "withdrew" | "refused" | "word";
  /**
   * The operator's word at the source that was checked and is not taken yet. `pulling` is a word for the destination in
   * post-copy.
   */
  readonly word: "none" | "source" | "destination" | "pulling";
  readonly destination: AgentAt<DestinationStateName>;
  readonly destinationJournal: (typeof DESTINATION_JOURNALS)[number];
  readonly destinationQemu: (typeof DESTINATION_QEMUS)[number];
  /** True when the mark of a refusal is in that QEMU. */
  readonly marked: boolean;
  /** True when another process runs the guest at the destination's host. */
  readonly destinationOther: boolean;
  /** True when QEMU refuses `cont` at the destination, as for a lock on an image. */
  readonly locked: boolean;
  /** Post-copy: true while pages of the guest are only at the source. */
  readonly missing: boolean;
  /** Post-copy: true while the page stream is broken, and QEMU's main loop may wait for a page. */
  readonly cut: boolean;
  /** Post-copy: true when the program that holds QEMU's monitor has ended. */
  readonly keeperGone: boolean;
  /**
   * Post-copy: true when the keeper and the agent have both ended while QEMU's main loop waited for a page, so that
   * QEMU answers no new client.
   */
  readonly mute: boolean;
  /** The messages in the network. Each may be taken any number of times until it is lost for good. */
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
  /** True once an agent has said that the guest runs twice. */
  readonly shown: boolean;
  /** True once an operator has said what was wrong: the agents can no longer tell which of two copies may run. */
  readonly overruled: boolean;
  /** True once an operator has given copies up, or a fault itself made the last step of a loss. */
  readonly lossExcused: boolean;
  /** How many faults, acts of somebody else and wrong words may still come in this run. */
  readonly faults: number;
  readonly acts: number;
  readonly wrongWords: number;
}

/** How a guest is handed over; the same for all worlds of a search. */
export type Manner = "precopy" | "paused" | "postcopy";

/** A budget that never ends. */
export const UNLIMITED = 9;

/**
 * What a step is. `normal`: it comes to pass when nothing else does. `chance`: it may come to pass, and nothing may
 * wait for it. The others are taken from a budget of the run: faults of machines, acts of somebody else, wrong words of
 * an operator.
 */
type StepKind = "normal" | "chance" | "fault" | "act" | "wrong";

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

/** True for an agent that is up, in whichever state. */
export const isUp = (agent: string): boolean => agent !== "down" && agent !== "off";

/** True for a process that has the guest's memory. Missing pages make no difference. */
export const isLiving = (qemu: World["destinationQemu"]): boolean => qemu !== "gone" && qemu !== "loading";
