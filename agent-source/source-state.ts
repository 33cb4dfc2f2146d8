/** What each state of a source migration holds (shared/protocol/source-states.ts has the edges). */
import type { MigrationFault } from "../shared/fault.ts";
import type { SourceChannel } from "../shared/link/link.ts";
import type { Contract } from "../shared/protocol/messages.ts";
import type { OwnershipGrant } from "../shared/protocol/ownership.ts";
import type { LiveSourceState, SourceEdges, SourceStateName } from "../shared/protocol/source-states.ts";
import type { GuestFacts } from "../shared/qemu/preflight.ts";
import type { QmpClient } from "../shared/qemu/qmp-client.ts";
import type { GuestDefinition } from "../shared/runtime/guest-definition.ts";
import type { Feed } from "./feed.ts";
import type { SourceContext } from "./source-context.ts";

interface Asked {
  readonly definition: GuestDefinition;
  readonly qmp: QmpClient;
  readonly facts: GuestFacts;
}

/** Moments of the switchover, microseconds since the epoch on this clock. */
export interface SwitchTimes {
  readonly stoppedUs: number;
  readonly lastPagesUs: number;
  readonly lastByteUs: number;
  readonly loadedUs: number;
  readonly verifyMs: number;
  readonly pagesCompared: number;
}

/** What has to be undone before a migration can end as kept. */
export interface Undo {
  readonly qmp?: QmpClient;
  readonly channel?: SourceChannel;
  readonly feed?: Feed;
}

interface Payloads {
  planned: object;
  negotiating: Asked;
  staging: Asked & { readonly contract: Contract };
  copying: { readonly feed: Feed };
  switching: { readonly feed: Feed; readonly reason: string };
  granting: { readonly feed: Feed; readonly times: SwitchTimes; readonly reason: string };
  inDoubt: { readonly feed: Feed; readonly grant: OwnershipGrant; readonly fault: MigrationFault };
  keeping: { readonly fault: MigrationFault; readonly undo: Undo };
  released: object;
  kept: { readonly fault: MigrationFault };
}

export type State<K extends SourceStateName> = { readonly kind: K } & Payloads[K];
export type SourceState = { [K in SourceStateName]: State<K> }[SourceStateName];
/** The states that K may lead to. */
export type Next<K extends SourceStateName> = { [N in SourceEdges[K]]: State<N> }[SourceEdges[K]];
/** One function for each state that is not final; a step that SOURCE_EDGES does not allow does not compile. */
export type Phases = { readonly [K in LiveSourceState]: (state: State<K>, cx: SourceContext) => Promise<Next<K>> };
