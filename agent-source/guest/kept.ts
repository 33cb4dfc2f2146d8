/** What an agent notes of a guest before it changes anything, so that the guest can be left as it was found. */
import type { SavedSettings, SourcePostcopy } from "../../shared/protocol/ownership.ts";

/**
 * What has to be known to leave the guest as it was found. When a migration has ended, only `postcopy` may still be
 * needed, to end its QEMU.
 */
export interface Kept {
  readonly settings?: SavedSettings | undefined;
  /** Set once post-copy has begun, which means that this agent has stopped the guest. */
  readonly postcopy?: SourcePostcopy | undefined;
  /** True when the guest's operator has paused it: this agent must never start it. */
  readonly paused: boolean;
  /** Set only in a `plan` record: this agent is about to retire the QEMU. */
  readonly retiring?: true | undefined;
}
