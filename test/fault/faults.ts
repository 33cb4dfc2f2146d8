/** What may go wrong, and at which moments of a migration: the rows and columns of the matrix, by name. */

export type AgentKind = "source" | "destination";
export type Victim = "source agent" | "destination agent" | "source QEMU" | "destination QEMU";

/**
 * What somebody other than the agents says to a QEMU. `pmemsave` reads all of the guest's memory: in post-copy QEMU's
 * main loop then waits for the pages that it misses, and answers nothing meanwhile.
 */
export type OutsiderCommand = "cont" | "stop" | "quit" | "system_reset" | "pmemsave";
/**
 * The commands by which QEMU ends. `system_reset` is one, since the guests of these tests do not reboot (-no-reboot).
 */
export const ENDS_QEMU: readonly OutsiderCommand[] = ["quit", "system_reset"];

/**
 * What an operator says to a migration in doubt, beside what the documents ask for. `contrary`: both words at once, at
 * the source. `late`: the other word after the one that was taken. `wrong host`: a word at agents that do not know the
 * migration. `unconfirmed`: a word without --yes where it needs it. `wrong`: a word with --yes that is not true.
 */
export type Words = "contrary" | "late" | "wrong host" | "unconfirmed" | "wrong";

/**
 * What goes wrong. Where `seconds` is undefined, the fault is for good: it lasts until the migration has ended or is in
 * doubt.
 */
export type Fault =
  | { readonly kind: "kill"; readonly victim: Victim }
  /** The victim gets SIGSTOP, and SIGCONT later. */
  | { readonly kind: "stop"; readonly victim: Victim; readonly seconds: number }
  | { readonly kind: "cut"; readonly seconds: number | undefined }
  /** Only what the destination's host sends is lost. */
  | { readonly kind: "reverse"; readonly seconds: number | undefined }
  /**
   * Both agents, the guest's QEMU and the keeper of its monitor end at once. A host that does not return comes back
   * after the operator's work.
   */
  | { readonly kind: "host"; readonly side: AgentKind; readonly returns: boolean }
  /** The keeper ends: the program that holds the destination QEMU's monitor in post-copy. */
  | { readonly kind: "keeper" }
  /** Another agent is started with the same directories and port. */
  | { readonly kind: "second agent"; readonly side: AgentKind }
  /**
   * The disk of a host's journals takes nothing, or does not answer. For good means here: until the cell was inspected.
   */
  | {
      readonly kind: "disk";
      readonly side: AgentKind;
      readonly how: "full" | "hanging";
      readonly seconds: number | undefined;
    }
  /**
   * Somebody says a command to a QEMU. `whenInDoubt` is part of the fault's name only: inject() says the command at the
   * moment itself.
   */
  | {
      readonly kind: "outsider";
      readonly side: AgentKind;
      readonly command: OutsiderCommand;
      readonly whenInDoubt?: true;
    }
  | { readonly kind: "words"; readonly words: Words }
  /** Several faults, one after the other without a pause. The first one is taken back last. */
  | { readonly kind: "all"; readonly of: readonly Fault[] };

/** An agent holds a migration at a state. */
export interface Hold {
  readonly side: AgentKind;
  readonly state: string;
}

/** Another fault at an earlier moment, because of which a state comes about. */
interface Behind {
  readonly fault: Fault;
  readonly at: Moment;
}

/** When the fault is committed. No moment is a matter of luck except `after`, which the soak draws from its seed. */
export type Moment =
  /**
   * An agent enters the state and waits (its setting `faults`, hold-at=STATE) until the fault was injected. The states
   * of giving up are entered because the operator cancels at an earlier moment (`cancelledAt`), the states of doubt
   * because of another fault at an earlier moment (`behind`). That other fault lasts as long as the cell's own fault;
   * an agent that it kills starts again at once, and holds at the state.
   */
  | (Hold & { readonly kind: "held"; readonly cancelledAt?: Moment; readonly behind?: Behind })
  /** This moment and the next are seen by the progress that the operator sees. */
  | { readonly kind: "first pass" }
  | { readonly kind: "later passes" }
  /** In post-copy: the source QEMU has written its last page, and the destination still misses some. */
  | { readonly kind: "last pages" }
  | { readonly kind: "after"; readonly ms: number; readonly bitsPerSecond: number };

export const held = (side: AgentKind, state: string, cancelledAt?: Moment): Moment => ({
  kind: "held",
  side,
  state,
  ...(cancelledAt === undefined ? {} : { cancelledAt }),
});

/** The moment at which `state` has come about because `fault` was committed at `at`. */
export const heldBehind = (side: AgentKind, state: string, fault: Fault, at: Moment): Moment => ({
  kind: "held",
  side,
  state,
  behind: { fault, at },
});

/** The states at which agents have to hold for the moment. */
export const holdsOf = (moment: Moment | undefined): readonly Hold[] =>
  moment?.kind === "held" ? [moment, ...holdsOf(moment.cancelledAt), ...holdsOf(moment.behind?.at)] : [];

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
    case "host":
      return `kill ${fault.side} host, ${fault.returns ? "returns" : "for good"}`;
    case "keeper":
      return "kill keeper";
    case "second agent":
      return `second ${fault.side} agent`;
    case "disk":
      return `${fault.side} disk ${fault.how} ${duration(fault.seconds)}`;
    case "outsider":
      return `outsider's ${fault.command} at the ${fault.side}${fault.whenInDoubt === true ? " in doubt" : ""}`;
    case "words":
      return `${fault.words} words`;
    case "all":
      return fault.of.map(faultName).join(" + ");
  }
}

export function momentName(moment: Moment): string {
  switch (moment.kind) {
    case "held":
      return `${moment.side} ${moment.state}${howItCame(moment)}`;
    case "first pass":
    case "later passes":
    case "last pages":
      return moment.kind;
    case "after":
      return `after ${moment.ms.toFixed(0)} ms at ${moment.bitsPerSecond / 1e6} Mbit/s`;
  }
}

function howItCame({ cancelledAt, behind }: Extract<Moment, { readonly kind: "held" }>): string {
  if (cancelledAt !== undefined) return `, cancelled at ${momentName(cancelledAt)}`;
  return behind === undefined ? "" : ` (${faultName(behind.fault)} at ${momentName(behind.at)})`;
}

const duration = (seconds: number | undefined): string =>
  seconds === undefined ? "for good" : `${Number(seconds.toFixed(1))} s`;

export const victimOf = (fault: Fault): Victim | undefined =>
  fault.kind === "kill" || fault.kind === "stop" ? fault.victim : undefined;

/** The single faults of which a fault is made. */
export const partsOf = (fault: Fault): readonly Fault[] => (fault.kind === "all" ? fault.of.flatMap(partsOf) : [fault]);

/** True for a fault of the cable, which a loopback does not have. */
export const needsCable = (fault: Fault): boolean =>
  partsOf(fault).some(({ kind }) => kind === "cut" || kind === "reverse");

/** True for a fault of a disk, which only root can mount. */
export const needsDisk = (fault: Fault): boolean => partsOf(fault).some(({ kind }) => kind === "disk");

/** How long a fault lasts, seconds: 0 where it is over as soon as it was committed, undefined where it is for good. */
export function secondsOf(fault: Fault): number | undefined {
  if (fault.kind === "all") {
    const all = fault.of.map(secondsOf);
    return all.includes(undefined) ? undefined : Math.max(...all.map(Number));
  }
  return "seconds" in fault ? fault.seconds : 0;
}
