/**
 * The values that CopyObserver and SwitchPolicy exchange: what the policy is told (Observation), and what it decides
 * (Decision).
 */

/**
 * The figures from which the policy decides. They are gathered at the end of each RAM section of QEMU's stream, and on
 * a timer.
 */
export interface Observation {
  /** Time since the session was made, milliseconds. */
  readonly elapsedMs: number;
  /** True once QEMU's stream has come as far as its list of RAM blocks. */
  readonly begun: boolean;
  /** True once every page that QEMU sends was captured at least once. */
  readonly firstPassDone: boolean;
  /** How many pages the last section had. If it drained QEMU's bitmap, the next sweep will find about as many. */
  readonly sweptPages: number;
  /** How many pages with content are captured and not sent. */
  readonly residualPages: number;
  /** The estimated encoded bytes of what is captured and not sent. */
  readonly residualBytes: number;
  /** The estimated encoded bytes of `residualPages` as whole pages, which is how post-copy would send them. */
  readonly residualWholeBytes: number;
  /** How many pages with content were sent so far; a page that was sent several times counts each time. */
  readonly sentPages: number;
  /** True while pages are pending that are not held: such pages wait for the link, or to be compressed. */
  readonly backlogged: boolean;
  /** Encoded bytes that one more dirtied page is likely to cost. */
  readonly bytesPerPage: number;
  /**
   * True once `bytesPerPage` is measured, and not the initial guess: with deltas, at least 256 pages that have a base
   * were sent again; with compression, at least 12 frames were compressed after the first pass.
   */
  readonly resendCostIsMeasured: boolean;
  /** Encoded bytes in flight, with the estimated size of frames that are being compressed. */
  readonly inFlightBytes: number;
  /** How many zero pages are in flight. */
  readonly inFlightZeroPages: number;
  readonly bytesPerSecond: number;
  readonly roundTripMs: number;
  /** Time to capture, encode and apply one page, microseconds. */
  readonly microsPerPage: number;
  /** True when a section of QEMU's stream has ended just now and left no page dirty that QEMU knew of. */
  readonly drained: boolean;
  /** True while nothing is heard from the destination. */
  readonly linkIsDown: boolean;
  /** True while the guest stands still: QEMU then completes without being told to. */
  readonly paused: boolean;
}

export type Decision =
  | { readonly kind: "continue" }
  /**
   * The residual fits the downtime target. The pages that wait are sent first, and QEMU does not sync its bitmap before
   * that.
   */
  | { readonly kind: "drain" }
  /** QEMU's stream is read at full speed from now on. */
  | { readonly kind: "close" }
  /** Reading is paced again: the residual did not get small enough. */
  | { readonly kind: "pace" }
  | { readonly kind: "switch"; readonly into: "destination" | "postcopy"; readonly reason: string }
  | { readonly kind: "cancel"; readonly reason: string };
