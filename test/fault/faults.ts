/** What may go wrong, and at which moments of a migration: the rows and columns of the matrix, by name. */

export type AgentKind = "source" | "destination";
export type Victim = "source agent" | "destination agent" | "source QEMU" | "destination QEMU";

/** `seconds` undefined: for good, that is until the migration has ended or is in doubt. */
export type Fault =
  | { readonly kind: "kill"; readonly victim: Victim }
  /** SIGSTOP, and SIGCONT later. */
  | { readonly kind: "stop"; readonly victim: Victim; readonly seconds: number }
  | { readonly kind: "cut"; readonly seconds: number | undefined }
  /** Only what the destination's host sends is lost. */
  | { readonly kind: "reverse"; readonly seconds: number | undefined };

export interface Hold {
  readonly side: AgentKind;
  readonly state: string;
}

/** When it goes wrong. Nothing here is a matter of luck but `after`, which the soak draws from its seed. */
export type Moment =
  /**
   * An agent enters the state and waits (`faults` hold-at=STATE) until the fault was injected. The states of giving up
   * are entered since the operator cancels at an earlier moment.
   */
  | (Hold & { readonly kind: "held"; readonly cancelledAt?: Moment })
  /** By the progress that the operator sees. */
  | { readonly kind: "first pass" }
  | { readonly kind: "later passes" }
  /** Of post-copy: the source QEMU has written its last page, and the destination misses some. */
  | { readonly kind: "last pages" }
  | { readonly kind: "after"; readonly ms: number; readonly bitsPerSecond: number };

export const held = (side: AgentKind, state: string, cancelledAt?: Moment): Moment => ({
  kind: "held",
  side,
  state,
  ...(cancelledAt === undefined ? {} : { cancelledAt }),
});

/** Where agents have to hold for it. */
export const holdsOf = (moment: Moment | undefined): readonly Hold[] =>
  moment?.kind === "held" ? [moment, ...holdsOf(moment.cancelledAt)] : [];

export function faultName(fault: Fault): string {
  switch (fault.kind) {
    case "kill":
      return `kill ${fault.victim}`;
    case "stop":
      return `stop ${fault.victim} ${duration(fault.seconds)}`;
    case "cut":
      return `cut ${duration(fault.seconds)}`;
    case "reverse":
      return `reverse lost ${duration(fault.seconds)}`;
  }
}

export function momentName(moment: Moment): string {
  switch (moment.kind) {
    case "held":
      return `${moment.side} ${moment.state}${moment.cancelledAt === undefined ? "" : `, cancelled at ${momentName(moment.cancelledAt)}`}`;
    case "first pass":
    case "later passes":
    case "last pages":
      return moment.kind;
    case "after":
      return `after ${moment.ms.toFixed(0)} ms at ${moment.bitsPerSecond / 1e6} Mbit/s`;
  }
}

const duration = (seconds: number | undefined): string =>
  seconds === undefined ? "for good" : `${Number(seconds.toFixed(1))} s`;

export const victimOf = (fault: Fault): Victim | undefined =>
  fault.kind === "kill" || fault.kind === "stop" ? fault.victim : undefined;

/** A loopback has no cable: its faults cannot be. */
export const needsCable = (fault: Fault): boolean => fault.kind === "cut" || fault.kind === "reverse";
