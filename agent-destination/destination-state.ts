/** What each state of an incoming migration holds (shared/protocol/destination-states.ts has the edges). */
import type { MigrationFault } from "../shared/fault.ts";
import type {
  DestinationEdges,
  DestinationStateName,
  LiveDestinationState,
} from "../shared/protocol/destination-states.ts";
import type { Contract } from "../shared/protocol/messages.ts";
import type { OwnershipGrant } from "../shared/protocol/ownership.ts";
import type { DestinationContext } from "./destination-context.ts";
import type { GuestProcess } from "./guest-process.ts";
import type { Receiver } from "./receiver.ts";

/** What has to be undone before a migration can end as discarded. */
export interface Undo {
  readonly guest?: GuestProcess;
  readonly receiver?: Receiver;
}

interface Payloads {
  negotiating: object;
  staging: { readonly guest: GuestProcess; readonly contract: Contract };
  receiving: { readonly guest: GuestProcess; readonly receiver: Receiver };
  loading: { readonly guest: GuestProcess; readonly receiver: Receiver };
  loaded: { readonly guest: GuestProcess; readonly receiver: Receiver };
  owning: { readonly guest: GuestProcess; readonly receiver: Receiver; readonly grant: OwnershipGrant };
  /** `refusing`: the guest was loaded, so a grant may be on its way and is refused for good. */
  discarding: { readonly fault: MigrationFault; readonly undo: Undo; readonly refusing: boolean };
  arrived: object;
  discarded: { readonly fault: MigrationFault };
}

export type State<K extends DestinationStateName> = { readonly kind: K } & Payloads[K];
export type DestinationState = { [K in DestinationStateName]: State<K> }[DestinationStateName];
export type Next<K extends DestinationStateName> = { [N in DestinationEdges[K]]: State<N> }[DestinationEdges[K]];
/** One function for each state that is not final; a step that DESTINATION_EDGES does not allow does not compile. */
export type Phases = {
  readonly [K in LiveDestinationState]: (state: State<K>, cx: DestinationContext) => Promise<Next<K>>;
};
