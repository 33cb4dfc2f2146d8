/**
 * Says what becomes of a migration at its source when its destination says something wrong, for each state and each
 * form.
 *
 *     holds   nothing happens: the migration goes on as it would have
 *     ends    the migration is given up, and the guest goes on at the source
 *     asks    the guest was granted: it stays paused, and only proof ends that, which the source asks for by calls
 *     moves   the source waits for this word: the guest belongs to the destination, and what that says of it counts
 *
 * A new state or a new message of the protocol does not compile until it has its place here.
 */
import type { SourceStateName } from "../../shared/protocol/source-states.ts";
import type { DestinationForm } from "./destination-forms.ts";

export type Fate = "holds" | "ends" | "asks" | "moves";
type Row = Readonly<Record<DestinationForm, Fate>>;

/** The states in which the guest runs at the source, or stands still there and is not granted. */
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
  // `loaded` is believed when the last frame has gone, and not before
  loadedLying: "ends",
  failureEnormous: "ends",
};

/** While the link is measured, acknowledgements of probes that were not sent yet count for nothing. */
const staging: Row = { ...copying, ackOfMore: "holds", ackOfEverything: "holds", ackOfMoreBytes: "holds" };

/** While the guest is granted, nothing that the stream says gives it back, except the proof of a refusal. */
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

/** In post-copy the guest runs at the destination, which may ask for pages. */
const serving: Row = {
  ...granted,
  pagesUnasked: "holds",
  pongUnasked: "holds",
  runningUnasked: "holds",
  completeUnasked: "moves",
};

/** The states that have no stream, or none that is read: only calls are answered. */
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

/** What becomes of a migration, by its state and by the form of what its destination says. */
export const DESTINATION_TABLE: Readonly<Record<StreamState, Row>> = {
  staging,
  copying,
  switching: copying,
  // the destination has the whole guest and was not granted it: what the stream says now may still end the migration
  retiring: { ...copying, loadedLying: "holds" },
  recording: { ...copying, loadedLying: "holds" },
  granting: granted,
  serving,
};
