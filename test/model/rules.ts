/**
 * The rules by which the agents of the search act: the project's own functions, and the rules of
 * docs/design/ownership.md (docs/decisions/0043) that are not functions of a table. A test leaves a rule out, or puts
 * another one in its place, to see that the search finds what the rule prevents.
 */
import { afterDestination, recoverDestination, standingOf } from "../../shared/protocol/destination-states.ts";
import { mayStart } from "../../shared/protocol/may-start.ts";
import { destinationMayRun, sourceMayRun } from "../../shared/protocol/ownership.ts";
import { afterSource, askInDoubt, recoverSource } from "../../shared/protocol/source-states.ts";

export const RULES = {
  afterSource,
  afterDestination,
  recoverSource,
  recoverDestination,
  askInDoubt,
  standingOf,
  mayStart,
  sourceMayRun,
  destinationMayRun,
  /** Rule 1: nothing is said to a process that is not the record's. */
  looksAtTheProcess: true,
  /** Rule 2: a QEMU that cannot be looked at does not count as ended. */
  unknownIsNoEnd: true,
  /** Rule 4: the agent looks at its own QEMU before each grant. */
  looksBeforeGrant: true,
  /** Rule 4: a grant that was withdrawn in doubt is noted as such, and never repeated. */
  notesWithdrawal: true,
  /** Rule 5: `plan` is written over `granted`. */
  planOverGranted: true,
  /** Rule 6: a loaded destination waits without limit. */
  waitsLoaded: true,
  /** Rule 6: a refused copy is kept until its source has heard the refusal. */
  keepsUntilHeard: true,
  /** Rule 6: a refusal that the disk does not take is put into QEMU as a mark. */
  marks: true,
  /** Rule 6: a refusal is durable before it is said. */
  refusedFirst: true,
  /** Rule 7: a withdrawal is said again until it is heard. */
  tellsUntilHeard: true,
  /** Rule 8: a source QEMU that has ended before the grant proves nothing. */
  orphans: true,
  /** Rule 9: only a QEMU that this agent was about to retire is made to run again. */
  notesRetiring: true,
  /** `granted` is written before the grant is sent. */
  grantedFirst: true,
  /** `running` is written before `cont` is said. */
  runningFirst: true,
  /** Rule 10: a `cont` that QEMU refuses proves that the guest did not run, and leads to a refusal. */
  declines: true,
  /** Rule 11: `cont` at the destination needs `running` on the disk, no mark, and a QEMU that waits. */
  looksBeforeCont: true,
  /** No agent says `cont` beside another process that runs the guest on its host. */
  looksBesideCont: true,
  /** The destination looks at its QEMU before it says that it has refused. */
  looksBeforeRefusal: true,
  /** Rule 13: a source that serves pages without contact is in doubt. */
  doubtsSilence: true,
  /** Rule 13: the end of the keeper leaves the page stream alone. */
  keepsStream: true,
  /** Rule 13: a second monitor is there for the case that keeper and stream are lost. */
  hasSecondMonitor: true,
  /** Rule 13: each doubt takes a word of its own. */
  freshWords: true,
  /** Rule 14: two copies are shown, and none is ended without a word. */
  showsDoubled: true,
  /**
   * A word for the destination is taken at the source only where the guest is started there, or with a confirmation.
   */
  wordNeedsProof: true,
  /** Rule 15: the destination takes an operator's word. */
  destinationTakesWords: true,
  /** Rule 15: an operator's word ends a QEMU that does not answer an agent which has started again. */
  endsUnseen: true,
};

export type Rules = typeof RULES;
