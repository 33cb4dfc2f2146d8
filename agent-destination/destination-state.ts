/** What each state of an incoming migration holds (shared/protocol/destination-states.ts has the edges). */
import type { MigrationFault } from "../shared/fault.ts";
import type { SourceConnection } from "../shared/link/grpc-link.ts";
import type {
  DestinationEdges,
  DestinationStateName,
  LiveDestinationState,
} from "../shared/protocol/destination-states.ts";
import type { Contract, Offer } from "../shared/protocol/messages.ts";
import type { DestinationPostcopy, OwnershipGrant } from "../shared/protocol/ownership.ts";
import type { DestinationContext } from "./destination-context.ts";
import type { GuestProcess } from "./guest-process.ts";
import type { Receiver } from "./receiver.ts";

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

interface Payloads {
  negotiating: { readonly offer: Offer };
  /** `source`: begun beside the start of QEMU; missing where it could not be. */
  staging: {
    readonly offer: Offer;
    readonly guest: GuestProcess;
    readonly contract: Contract;
    readonly source: SourceConnection | undefined;
  };
  receiving: { readonly guest: GuestProcess; readonly receiver: Receiver };
  loading: { readonly guest: GuestProcess; readonly receiver: Receiver };
  loaded: Whole & { readonly loadedAtUs: number };
  owning: Whole & { readonly grant: OwnershipGrant };
  /** `grantedAtUs`: when the grant came, on this clock. */
  starting: Whole & { readonly grant: OwnershipGrant; readonly grantedAtUs: number };
  /** Without a receiver an agent that started again took it up. */
  pulling: { readonly guest: GuestProcess; readonly receiver?: Receiver; readonly postcopy: DestinationPostcopy };
  refusing: { readonly fault: MigrationFault; readonly undo: Undo };
  removing: { readonly fault: MigrationFault; readonly undo: Undo };
  /** `refused`: a grant may be on its way, and the journal says that it is refused for good. */
  discarding: { readonly fault: MigrationFault; readonly undo: Undo; readonly refused: boolean };
  arrived: object;
  lost: object;
  discarded: { readonly fault: MigrationFault };
}

export type State<K extends DestinationStateName> = { readonly kind: K } & Payloads[K];
export type DestinationState = { [K in DestinationStateName]: State<K> }[DestinationStateName];
export type Next<K extends DestinationStateName> = { [N in DestinationEdges[K]]: State<N> }[DestinationEdges[K]];
/** One function for each state that is not final; a step that DESTINATION_STATES does not allow does not compile. */
export type Phases = {
  readonly [K in LiveDestinationState]: (state: State<K>, cx: DestinationContext) => Promise<Next<K>>;
};

/** What the next state holds of it too. */
export const wholeOf = ({ guest, receiver, postcopy }: Whole): Whole => ({
  guest,
  ...(receiver === undefined ? {} : { receiver }),
  ...(postcopy === undefined ? {} : { postcopy }),
});

export const undoWhole = ({ guest, receiver }: Whole): Undo =>
  receiver === undefined ? { guest } : { guest, receiver };
