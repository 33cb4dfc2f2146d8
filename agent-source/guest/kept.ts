/** What an agent notes of a guest before it changes anything, so that the guest can be left as it was found. */
import type { SavedSettings, SourcePostcopy } from "../../shared/protocol/ownership.ts";

/** What has to be known to leave the guest as it was found; nothing once it has ended. */
export interface Kept {
  readonly settings?: SavedSettings | undefined;
  /** Post-copy has begun, and so the guest was stopped by this agent. */
  readonly postcopy?: SourcePostcopy | undefined;
  /** By whoever operates it: never to be started by this agent. */
  readonly paused: boolean;
  /** Only for `plan`: this agent is about to retire the QEMU. */
  readonly retiring?: true | undefined;
}
