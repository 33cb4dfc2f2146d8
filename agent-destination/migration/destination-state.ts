/**
 * What each state of an incoming migration holds, as types. Which state may follow which is in
 * shared/protocol/destination-states.ts, which also says what each state means.
 */
import { defined } from "../../shared/defined.ts";
import type { MigrationFault } from "../../shared/fault.ts";
import type { SourceConnection } from "../../shared/link/grpc/grpc-link.ts";
import type {
  DestinationEdges,
  DestinationOutcome,
  DestinationStateName,
  LiveDestinationState,
} from "../../shared/protocol/destination-states.ts";
import type { Contract, GuestDisks, Offer } from "../../shared/protocol/messages.ts";
import type { DestinationPostcopy, DestinationRecord, OwnershipGrant } from "../../shared/protocol/ownership.ts";
import type { GuestDefinition } from "../../shared/runtime/guest/guest-definition.ts";
import type { GuestProcess } from "../guest/guest-process.ts";
import type { Receiver } from "../replay/receiver.ts";
import type { DestinationContext } from "./destination-context.ts";

/** What has to be undone before a migration can end as discarded. */
export interface Undo {
  readonly guest?: GuestProcess;
  readonly receiver?: Receiver;
}

/**
 * A QEMU that has the whole guest, or in post-copy its device state. `receiver` is missing where an agent that started
 * again took the migration up.
 */
interface Whole {
  readonly guest: GuestProcess;
  readonly receiver?: Receiver;
  /**
   * What an agent needs to resume post-copy. Set only in post-copy: QEMU has the device state, and gets the missing
   * pages while the guest runs.
   */
  readonly postcopy?: DestinationPostcopy;
}

/** What the states of a refusal hold. */
interface Refused {
  readonly fault: MigrationFault;
  readonly undo: Undo;
}

/** What each state holds beside its name. */
interface Payloads {
  /** `record`: what the journal has of the migration. */
  adopting: { readonly record: DestinationRecord };
  /** `definition`: this host's definition of the guest, which is equal to the source's. */
  negotiating: { readonly offer: Offer; readonly definition: GuestDefinition };
  /** `source`: a connection to the source that was begun while QEMU started; undefined where it could not be begun. */
  staging: {
    readonly offer: Offer;
    readonly guest: GuestProcess;
    readonly contract: Contract;
    /** The disks of the QEMU here, as they were compared with those of the source. */
    readonly disks: GuestDisks | undefined;
    readonly source: SourceConnection | undefined;
  };
  receiving: { readonly guest: GuestProcess; readonly receiver: Receiver };
  loading: { readonly guest: GuestProcess; readonly receiver: Receiver };
  /** `isStarted`: true when somebody other than an agent has started the guest while QEMU loaded it. */
  loaded: Whole & { readonly loadedAtUs: number; readonly isStarted?: boolean };
  /** `isMarked`: true when QEMU carries the mark of a refusal, and an operator has claimed the guest. */
  owning: Whole & { readonly grant: OwnershipGrant; readonly isMarked: boolean };
  /** `grantedAtUs`: when the grant came, microseconds on this host's clock. */
  starting: Whole & { readonly grant: OwnershipGrant; readonly grantedAtUs: number };
  /** `receiver` is missing where an agent that started again has taken the migration up. */
  pulling: { readonly guest: GuestProcess; readonly receiver?: Receiver; readonly postcopy: DestinationPostcopy };
  /**
   * `isWhole`: true when QEMU has the whole guest, so that its copy is to be kept; undefined where this agent does not
   * know whether QEMU has the whole guest. `mayBeRunning`: true when the journal may say `running`. The guest may then
   * have run, so the end of its QEMU does not make the refusal durable, and only the journal can.
   */
  refusing: Refused & { readonly isWhole: boolean | undefined; readonly mayBeRunning: boolean };
  withheld: Refused & { readonly undo: Undo & { readonly guest: GuestProcess } };
  /**
   * `refused`: true when the source may have sent a grant. The guest is then refused for good already: by the journal,
   * by a mark, or because its QEMU has ended.
   */
  discarding: Refused & { readonly refused: boolean };
  arrived: object;
  lost: object;
  discarded: { readonly fault: MigrationFault };
  /** `isWhole`: true when the guest has all of its pages. */
  doubled: { readonly fault: MigrationFault; readonly isWhole: boolean };
}

/** One state with what it holds. */
export type State<K extends DestinationStateName> = { readonly kind: K } & Payloads[K];
/** Any state of an incoming migration. */
export type DestinationState = { [K in DestinationStateName]: State<K> }[DestinationStateName];
/** The states that may follow a state. */
export type Next<K extends DestinationStateName> = { [N in DestinationEdges[K]]: State<N> }[DestinationEdges[K]];
/** The outcomes of a state, by which the table finds the next one. */
export type DestinationEdgesOf<K extends DestinationStateName> = DestinationOutcome<K>;
/** One function for each state that is not final; a step that DESTINATION_STATES does not allow does not compile. */
export type Phases = {
  readonly [K in LiveDestinationState]: (state: State<K>, cx: DestinationContext) => Promise<Next<K>>;
};

/** Copies what every state of a whole guest passes on to the next state. */
export const wholeOf = ({ guest, receiver, postcopy }: Whole): Whole => ({
  guest,
  ...defined({ receiver, postcopy }),
});

/** Makes what has to be undone where a whole guest is given up. */
export const undoWhole = ({ guest, receiver }: Whole): Undo =>
  receiver === undefined ? { guest } : { guest, receiver };
