/**
 * The input of the model (docs/design/model.md): the guest, the link, the costs of the agents, and what the operator
 * wishes for. Figures of guest, link and costs are measured, or they are the usual costs below.
 */
import type { DirtyCurve } from "./dirty-curve.ts";

interface GuestObservation {
  readonly pages: number;
  /** How many of the pages are all zero. */
  readonly zeroPages: number;
  readonly dirty: DirtyCurve;
  /** Mean encoded bytes of a page that is sent for the first time: its size over zstd's ratio. */
  readonly firstCopyBytes: number;
  /** Mean encoded bytes of a page that was dirtied and is sent whole. */
  readonly dirtiedPageBytes: number;
  /**
   * Mean encoded bytes of a page that is sent again and has a base, by the age of the base in seconds. They never
   * decrease with the age.
   */
  readonly deltaBytes: (seconds: number) => number;
  /** True when the guest does not run. It dirties no page then, and its downtime does not matter. */
  readonly paused: boolean;
}

export interface LinkObservation {
  readonly bytesPerSecond: number;
  readonly roundTripMs: number;
}

/**
 * What a migration costs the agents and the QEMUs, whatever the link. Their stages work side by side, so each cost is
 * that of the slowest stage.
 */
export interface AgentCosts {
  /**
   * The cost of a page with content that is sent for the first time: capture, zstd, apply, and the destination's first
   * touch of it.
   */
  readonly microsPerFirstCopy: number;
  /** The cost of a page that is sent again. */
  readonly microsPerAgain: number;
  readonly microsPerZeroPage: number;
  /**
   * The time from the operator's command to the first page: handshake, start of the destination QEMU, measuring the
   * link.
   */
  readonly startMs: number;
  /**
   * The time from the decision to switch until the STOP, while the guest runs
   * (docs/design/switchover.md#what-qemu-may-do-by-itself).
   */
  readonly switchMs: number;
  /** The downtime if nothing were left to send: stop, device state, load, journals, `cont`. */
  readonly fixedDowntimeMs: number;
  /**
   * How long the link needs for what is in flight when the switch is decided. The switch policy does not wait until
   * nothing is in flight: up to 25 ms may be left.
   */
  readonly tailMs: number;
  /** The bytes that every migration sends besides its pages: those that measure the link, and the device state. */
  readonly fixedBytes: number;
}

/**
 * The costs on one host: two shared cores, guests under TCG, zstd's level chosen by the link. They stand for any host
 * whose speed was not measured. For a host whose speed was measured, onHost() scales them.
 * @see docs/results/planner.md and docs/design/model.md#the-usual-costs for that host
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

/**
 * How many bytes of simulated pages one processor of the host of USUAL_COSTS compresses in a second
 * (agent-source/planning/host-speed.ts). The figure was not measured on that host; it was computed from the speed of
 * another host (docs/design/planning.md#how-fast-the-host-is).
 */
export const USUAL_COSTS_ZSTD_BYTES_PER_SECOND = 660e6;
/**
 * The costs on a host are divided by this power of its speed. The speed is that of zstd, which works in the caches of
 * the processor. A page also costs memory accesses and kernel time, which differ less between hosts
 * (docs/design/planning.md#how-fast-the-host-is).
 */
const SPEED_EXPONENT = 0.7;

/** Returns the costs on a host that is `speed` times as fast as the host of `costs`. */
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

/** What post-copy costs. */
export interface PostcopyCosts {
  /** The downtime: stop, device state, discard, listen, run. */
  readonly postcopyFixedDowntimeMs: number;
  /** The time that page requests add, as a fraction of the time for the same pages in order. */
  readonly postcopyFaultOverhead: number;
  /** The bytes that page requests add, as a fraction of all bytes. */
  readonly postcopyRequestBytes: number;
}

/** The costs of post-copy on the host of USUAL_COSTS. */
export const USUAL_POSTCOPY: PostcopyCosts = {
  postcopyFixedDowntimeMs: 40,
  postcopyFaultOverhead: 0.1,
  postcopyRequestBytes: 0.02,
};

/** What the operator and the configuration ask for. */
export interface Wishes {
  readonly downtimeTargetMs: number;
  /** 0 when there is no deadline. */
  readonly deadlineMs: number;
  /** True when the source is to stay whole until the grant, so that no host that dies can take the guest with it. */
  readonly robustnessFirst: boolean;
  /** How many pages the base cache holds; 0 without deltas. */
  readonly basePages: number;
  /** The most pages that may be held until the switch is near: half of the arena. */
  readonly heldPagesMax: number;
  /** How often per second QEMU may sync its dirty bitmap (`transfer.syncRate`). */
  readonly syncsPerSecond: number;
}

export interface PredictionInput {
  readonly guest: GuestObservation;
  readonly link: LinkObservation;
  readonly costs: AgentCosts;
  readonly postcopy: PostcopyCosts;
  readonly wishes: Wishes;
}
