/** What the model is told: of the guest, of the link, of the agents, and of what is asked for. All measured, or said to be taken. */
import type { DirtyCurve } from "./dirty-curve.ts";

export interface GuestObservation {
  readonly pages: number;
  /** Of these, all zero. */
  readonly zeroPages: number;
  readonly dirty: DirtyCurve;
  /** Mean encoded bytes of a page that is sent for the first time: a page over zstd's ratio. */
  readonly firstCopyBytes: number;
  /** The same of one that was dirtied, and is sent whole. */
  readonly dirtiedPageBytes: number;
  /** Mean encoded bytes of a page that is sent again and has a base, which was sent so many seconds before; never decreasing. */
  readonly deltaBytes: (seconds: number) => number;
  /** It does not run: nothing is dirtied, and nobody waits for it. */
  readonly paused: boolean;
}

export interface LinkObservation {
  readonly bytesPerSecond: number;
  readonly roundTripMs: number;
}

/** What the agents and the QEMUs cost whatever the link, each the narrowest of their stages. */
export interface AgentCosts {
  /** Of a page with content, sent for the first time: capture, zstd, apply, the destination's first touch. */
  readonly microsPerFirstCopy: number;
  readonly microsPerAgain: number;
  readonly microsPerZeroPage: number;
  /** From the command to the first page: handshake, destination QEMU, measuring the link. */
  readonly startMs: number;
  /** From the decision to the STOP, with the guest running (decision 0023). */
  readonly switchMs: number;
  /** Downtime whatever is left: stop, device state, load, journals, cont. */
  readonly fixedDowntimeMs: number;
  /** What is still on its way when the switch is decided, in time of the link: up to 25 ms are not waited for. */
  readonly tailMs: number;
  /** Sent whatever the guest: measuring the link, device state. */
  readonly fixedBytes: number;
}

/**
 * Two shared cores, guests under TCG, zstd's level by the link: where nobody has measured this host.
 * @see docs/model.md for the runs that they come from
 */
export const USUAL_COSTS: AgentCosts = {
  microsPerFirstCopy: 25,
  microsPerAgain: 2,
  microsPerZeroPage: 1,
  startMs: 180,
  switchMs: 50,
  fixedDowntimeMs: 25,
  tailMs: 12.5,
  fixedBytes: 1.1e6,
};

/** What one of that host's processors makes of the reference (agent-source/planning/host-speed.ts), by way of another host: docs/decisions/0042. */
export const USUAL_COSTS_ZSTD_BYTES_PER_SECOND = 660e6;
/** zstd lives in the processor's caches; what a page costs is memory and kernel, too, which differ less between hosts (0042). */
const SPEED_EXPONENT = 0.7;

/** On a host that is so many times as fast. */
export function onHost(costs: AgentCosts, speed: number): AgentCosts {
  const slower = speed ** -SPEED_EXPONENT;
  return {
    ...costs,
    microsPerFirstCopy: costs.microsPerFirstCopy * slower,
    microsPerAgain: costs.microsPerAgain * slower,
    microsPerZeroPage: costs.microsPerZeroPage * slower,
    startMs: costs.startMs * slower,
    switchMs: costs.switchMs * slower,
    fixedDowntimeMs: costs.fixedDowntimeMs * slower,
  };
}

/** Of post-copy. */
export interface PostcopyCosts {
  /** Downtime: stop, device state, discard, listen, run. */
  readonly postcopyFixedDowntimeMs: number;
  /** Time that faults add to sending the same pages in order, as a part of it. */
  readonly postcopyFaultOverhead: number;
  /** Bytes that requests add, as a part. */
  readonly postcopyRequestBytes: number;
}

/** As USUAL_COSTS. */
export const USUAL_POSTCOPY: PostcopyCosts = {
  postcopyFixedDowntimeMs: 40,
  postcopyFaultOverhead: 0.1,
  postcopyRequestBytes: 0.02,
};

export interface Wishes {
  readonly downtimeTargetMs: number;
  /** 0: none. */
  readonly deadlineMs: number;
  /** The source is to stay whole until the commit: nothing that a dead host could lose. */
  readonly robustnessFirst: boolean;
  /** Pages that the base cache holds; 0 without delta. */
  readonly basePages: number;
  /** Pages that may be held until the end, at most: half of the arena. */
  readonly heldPagesMax: number;
  /** Turns of the feed a second (`transfer.syncRate`). */
  readonly syncsPerSecond: number;
}

export interface PredictionInput {
  readonly guest: GuestObservation;
  readonly link: LinkObservation;
  readonly costs: AgentCosts;
  readonly postcopy: PostcopyCosts;
  readonly wishes: Wishes;
}
