/**
 * What becomes of a migration at its source when its destination says something wrong in each state.
 *
 *     holds   nothing happens: the migration goes on as it would have
 *     ends    the migration is given up, and the guest goes on at the source
 *     asks    the guest was granted: it stays paused, and only proof ends that, which the source asks for by calls
 *     moves   it is the word that the source waits for: the guest is the destination's, and what it says of it counts
 *
 * A state that is new in the protocol, or a message that is, does not compile until it has its place here.
 */
import type { SourceStateName } from "../../shared/protocol/source-states.ts";
import type { DestinationForm } from "./destination-forms.ts";

export type Fate = "holds" | "ends" | "asks" | "moves";
type Row = Readonly<Record<DestinationForm, Fate>>;

/** The guest runs here, or stands still and is not granted. */
const copying: Row = {
  repliesUnasked: "holds",
  digestsUnasked: "holds",
  helloAgain: "ends",
  ackOfMore: "ends",
  ackOfEverything: "ends",
  ackOfMoreBytes: "ends",
  runningUnasked: "ends",
  pagesUnasked: "ends",
  everyPage: "ends",
  noPage: "ends",
  pongUnasked: "ends",
  completeUnasked: "ends",
  missingUnasked: "ends",
  // it is believed when the last frame has gone, and not before
  loadedLying: "ends",
  failureEnormous: "ends",
};

/** The link is measured: acknowledgements of probes that were not sent yet count for nothing. */
const staging: Row = { ...copying, ackOfMore: "holds", ackOfEverything: "holds", ackOfMoreBytes: "holds" };

/** The guest is granted: nothing that the stream says gives it back, but the proof of a refusal. */
const granted: Row = {
  repliesUnasked: "holds",
  digestsUnasked: "holds",
  loadedLying: "holds",
  helloAgain: "asks",
  ackOfMore: "asks",
  ackOfEverything: "asks",
  ackOfMoreBytes: "asks",
  runningUnasked: "moves",
  pagesUnasked: "asks",
  everyPage: "asks",
  noPage: "asks",
  pongUnasked: "asks",
  completeUnasked: "asks",
  missingUnasked: "asks",
  failureEnormous: "asks",
};

/** Post-copy: the guest runs at the destination, and may ask for pages. */
const serving: Row = {
  ...granted,
  pagesUnasked: "holds",
  pongUnasked: "holds",
  runningUnasked: "holds",
  completeUnasked: "moves",
};

/** No stream, or none that is read: only calls are answered. */
export type StreamlessState =
  | "planned"
  | "negotiating"
  | "inDoubt"
  | "releasing"
  | "keeping"
  | "withdrawing"
  | "orphaned"
  | "doubled"
  | "released"
  | "kept"
  | "stranded";
export type StreamState = Exclude<SourceStateName, StreamlessState>;

export const DESTINATION_TABLE: Readonly<Record<StreamState, Row>> = {
  staging,
  copying,
  switching: copying,
  // the whole guest is at the destination and not granted: what the stream says now may still end the migration
  retiring: { ...copying, loadedLying: "holds" },
  recording: { ...copying, loadedLying: "holds" },
  granting: granted,
  serving,
};
