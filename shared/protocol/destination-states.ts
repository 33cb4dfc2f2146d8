/**
 * The states of a migration at its destination, as one table; see source-states.ts.
 *
 * Journal: `running` is written before `cont`; `refused` before a refusal is said.
 * Post-copy will add *pulling* between *owning* and *arrived*.
 */
export const DESTINATION_EDGES = {
  /** Checks the offer against its own definition, host and QEMU. */
  negotiating: ["staging", "discarding"],
  /** The paused QEMU waits with an open socket; the transfer stream is dialled. */
  staging: ["receiving", "discarding"],
  /** Frames go to QEMU in strict sequence. */
  receiving: ["loading", "discarding"],
  /** QEMU has every byte and finishes loading. */
  loading: ["loaded", "discarding"],
  /** QEMU has the whole guest and is paused; nothing was granted. */
  loaded: ["owning", "discarding"],
  /** Granted: the guest is started. */
  owning: ["arrived", "discarding"],
  /** Ends the QEMU of a migration that will not happen. */
  discarding: ["discarded"],
  arrived: [],
  discarded: [],
} as const satisfies Record<string, readonly string[]>;

export type DestinationStateName = keyof typeof DESTINATION_EDGES;
export type DestinationEdges = { [K in DestinationStateName]: (typeof DESTINATION_EDGES)[K][number] };
export type LiveDestinationState = {
  [K in DestinationStateName]: DestinationEdges[K] extends never ? never : K;
}[DestinationStateName];
