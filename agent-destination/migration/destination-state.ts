/** What each state of an incoming migration holds (shared/protocol/destination-states.ts has the edges). */
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

/** A QEMU with the whole guest. The stream is missing where an agent that started again took the migration up. */
interface Whole {
  readonly guest: GuestProcess;
  readonly receiver?: Receiver;
  /** Of post-copy: it has the devices, and gets its pages while it runs. */
  readonly postcopy?: DestinationPostcopy;
}

/** What the states of a refusal hold. */
interface Refused {
  readonly fault: MigrationFault;
  readonly undo: Undo;
}

interface Payloads {
  /** The record that the journal has. */
  adopting: { readonly record: DestinationRecord };
  /** `definition`: the own one of the guest, which is the source's too. */
  negotiating: { readonly offer: Offer; readonly definition: GuestDefinition };
  /** `source`: begun beside the start of QEMU; missing where it could not be. */
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
  /** `isStarted`: somebody else has started the guest while QEMU loaded it. */
  loaded: Whole & { readonly loadedAtUs: number; readonly isStarted?: boolean };
  /** `isMarked`: the QEMU carries the mark of a refusal, and an operator has claimed the guest. */
  owning: Whole & { readonly grant: OwnershipGrant; readonly isMarked: boolean };
  /** `grantedAtUs`: when the grant came, on this clock. */
  starting: Whole & { readonly grant: OwnershipGrant; readonly grantedAtUs: number };
  /** `receiver` is missing where an agent that started again has taken the migration up. */
  pulling: { readonly guest: GuestProcess; readonly receiver?: Receiver; readonly postcopy: DestinationPostcopy };
  /**
   * `isWhole`: the QEMU has the whole guest, and its copy is to be kept; undefined where QEMU may have it before this
   * agent has seen that. `mayBeRunning`: the journal may say `running`, so that the end of the QEMU alone is no
   * refusal.
   */
  refusing: Refused & { readonly isWhole: boolean | undefined; readonly mayBeRunning: boolean };
  withheld: Refused & { readonly undo: Undo & { readonly guest: GuestProcess } };
  /**
   * `refused`: a grant may be on its way, and the guest is refused for good, by the journal, by a mark, or because its
   * QEMU has ended.
   */
  discarding: Refused & { readonly refused: boolean };
  arrived: object;
  lost: object;
  discarded: { readonly fault: MigrationFault };
  /** `isWhole`: the guest has all of its pages. */
  doubled: { readonly fault: MigrationFault; readonly isWhole: boolean };
}

export type State<K extends DestinationStateName> = { readonly kind: K } & Payloads[K];
export type DestinationState = { [K in DestinationStateName]: State<K> }[DestinationStateName];
export type Next<K extends DestinationStateName> = { [N in DestinationEdges[K]]: State<N> }[DestinationEdges[K]];
export type DestinationEdgesOf<K extends DestinationStateName> = DestinationOutcome<K>;
/** One function for each state that is not final; a step that DESTINATION_STATES does not allow does not compile. */
export type Phases = {
  readonly [K in LiveDestinationState]: (state: State<K>, cx: DestinationContext) => Promise<Next<K>>;
};

/** What every state of a whole guest passes on to the next state. */
export const wholeOf = ({ guest, receiver, postcopy }: Whole): Whole => ({
  guest,
  ...(receiver === undefined ? {} : { receiver }),
  ...(postcopy === undefined ? {} : { postcopy }),
});

export const undoWhole = ({ guest, receiver }: Whole): Undo =>
  receiver === undefined ? { guest } : { guest, receiver };
