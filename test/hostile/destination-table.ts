/**
 * Says what becomes of a migration at its destination when its source says something wrong, for each state and each
 * form.
 *
 *     holds   nothing happens: the migration goes on as it would have
 *     ends    the migration is over, nothing is started, and the QEMU ends or waits for the source to have heard so
 *
 * A new state or a new message of the protocol does not compile until it has its place here.
 */
import type { DestinationStateName } from "../../shared/protocol/destination-states.ts";
import type { SourceForm } from "./source-forms.ts";

export type Fate = "holds" | "ends";
type Row = Readonly<Record<SourceForm, Fate>>;

/** Forms that a source may say at any time: they are answered, or count for nothing. */
const HARMLESS = {
  probes: "holds",
  pings: "holds",
  grantOfAnother: "holds",
  grantOfAnotherEpoch: "holds",
  grantOfNothing: "holds",
} as const;

/** The states in which frames are taken. */
const receiving: Row = {
  ...HARMLESS,
  frameOutOfSequence: "ends",
  frameAgain: "ends",
  frameZero: "ends",
  frameOfTheLastNumber: "ends",
  frameDamaged: "ends",
  frameThatClaims: "ends",
  frameEmpty: "ends",
  frameTooLong: "ends",
  frameOfNoPages: "ends",
  frameOfGarbage: "ends",
  frameSqueezedGarbage: "ends",
  frameOfPackage: "ends",
  frameOfDiscards: "ends",
  layoutAgain: "ends",
  layoutOfOthers: "ends",
  layoutEnormous: "ends",
  layoutOfNothing: "ends",
  welcomeAgain: "ends",
  welcomeLying: "ends",
  welcomeAnew: "ends",
  resume: "ends",
  resumes: "ends",
  endOfMore: "ends",
  endOfEverything: "ends",
  digestsOfEverything: "ends",
  digestsOfNoPage: "ends",
  failureEnormous: "ends",
};

/**
 * The states in which the whole guest is at the destination. Only the right word of its source, an operator or the end
 * of its QEMU ends the migration then. A stream on which something wrong was said is not read any more, and the source
 * may still ask by calls.
 */
const whole: Row = {
  ...receiving,
  frameOutOfSequence: "holds",
  frameAgain: "holds",
  frameZero: "holds",
  frameOfTheLastNumber: "holds",
  frameDamaged: "holds",
  frameThatClaims: "holds",
  frameEmpty: "holds",
  frameTooLong: "holds",
  frameOfNoPages: "holds",
  frameOfGarbage: "holds",
  frameSqueezedGarbage: "holds",
  frameOfPackage: "holds",
  frameOfDiscards: "holds",
  layoutAgain: "holds",
  layoutOfOthers: "holds",
  layoutEnormous: "holds",
  layoutOfNothing: "holds",
  welcomeAgain: "holds",
  welcomeLying: "holds",
  welcomeAnew: "holds",
  resume: "holds",
  resumes: "holds",
  endOfMore: "holds",
  endOfEverything: "holds",
  digestsOfEverything: "holds",
  digestsOfNoPage: "holds",
  failureEnormous: "holds",
};

/** The states that have no stream yet, or none any more: only calls reach the migration. */
export type StreamlessState =
  | "adopting"
  | "negotiating"
  | "staging"
  | "discarding"
  | "arrived"
  | "lost"
  | "discarded"
  | "doubled";
/** The state of post-copy, which needs a QEMU that can do post-copy: only calls are played in it (README.md). */
type PostcopyState = "pulling";
export type StreamState = Exclude<DestinationStateName, StreamlessState | PostcopyState>;

/** What becomes of a migration, by its state and by the form of what its source says. */
export const SOURCE_TABLE: Readonly<Record<StreamState, Row>> = {
  receiving,
  loading: receiving,
  // by `failure` a source gives the guest up
  loaded: { ...whole, failureEnormous: "ends" },
  owning: whole,
  starting: whole,
  refusing: whole,
  withheld: whole,
};
