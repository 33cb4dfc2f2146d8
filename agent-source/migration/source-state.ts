/**
 * What each state of a source migration holds. Which state may follow which is in shared/protocol/source-states.ts, and
 * what happens in each is in phases/.
 */
import { defined } from "../../shared/defined.ts";
import type { MigrationFault } from "../../shared/fault.ts";
import type { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { Contract } from "../../shared/protocol/messages.ts";
import type { SavedSettings, SourcePostcopy } from "../../shared/protocol/ownership.ts";
import type { LiveSourceState, SourceEdges, SourceStateName } from "../../shared/protocol/source-states.ts";
import type { Complete, Running } from "../../shared/protocol/stream-messages.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { GuestDefinition } from "../../shared/runtime/guest/guest-definition.ts";
import type { Kept } from "../guest/kept.ts";
import type { FoundGuest } from "../guest/look-at-guest.ts";
import type { SwitchTimes } from "../report/migration-result.ts";
import type { TransferSession } from "../transfer/transfer-session.ts";
import type { SourceContext } from "./source-context.ts";

/** What is known once the guest's QEMU was asked. */
interface Asked {
  readonly definition: GuestDefinition;
  readonly qmp: QmpClient;
  readonly facts: FoundGuest;
}

/** What has to be undone before a migration can end as kept. */
export interface Undo {
  /**
   * The guest's monitor, where it is open already. If it is missing and `touched` is true, *keeping* connects to it.
   */
  readonly qmp?: QmpClient;
  readonly channel?: ResumingSource;
  readonly session?: Pick<TransferSession, "stop" | "awaitsShut" | "shut">;
  /** True when QEMU's settings may have been changed, or its migration may have begun. */
  readonly touched: boolean;
  /** True when the destination has accepted the guest, and so is told that the guest stays here. */
  readonly accepted: boolean;
  /** True when the destination may have the whole guest. If the QEMU here has ended, that copy may be the only one. */
  readonly mayBeWhole: boolean;
  /**
   * True when this migration has brought the QEMU into `postmigrate`, or may have. Only then *keeping* starts a guest
   * whose QEMU is in `postmigrate`. An agent that starts again knows this by `retiring` in the journal, which the agent
   * writes before it retires a QEMU.
   */
  readonly isRetired: boolean;
  /**
   * Whether the journal may say `granted`. If it may, the agent writes `plan` over `granted` before it starts the
   * guest. `no`: the journal does not say `granted`. `unsaid`: it may say so, and the grant was not sent. `givenBack`:
   * it says so, and the destination's refusal was heard, or the operator has given the guest back.
   */
  readonly granted: "no" | "unsaid" | "givenBack";
  /** True when the guest was paused: it is never started, in whatever state QEMU is left. */
  readonly paused: boolean;
  readonly settings?: SavedSettings;
  /** Set once post-copy has begun: this agent has stopped the guest. */
  readonly postcopy?: SourcePostcopy;
}

/** What a migration has once the destination has loaded the guest: the whole guest, or in post-copy its devices. */
export interface Loaded {
  readonly session: TransferSession;
  readonly times: SwitchTimes;
  /** Why the switchover was begun when it was. */
  readonly reason: string;
}

/** What every state of a granted guest holds. */
export interface Granted {
  /** Missing where there is no session: after the agent was started again, or after the stream of post-copy is over. */
  readonly loaded?: Loaded;
  readonly settings?: SavedSettings;
  readonly postcopy?: SourcePostcopy;
  /** True when the guest was granted paused. */
  readonly paused: boolean;
}

/** What each state holds beside its name. */
interface Payloads {
  planned: object;
  negotiating: Asked;
  staging: Asked & { readonly contract: Contract };
  copying: { readonly session: TransferSession };
  /** `into` says how the switchover goes on. `nothing`: QEMU completes by itself, since the guest stands still. */
  switching: {
    readonly session: TransferSession;
    readonly reason: string;
    readonly into: "destination" | "postcopy" | "nothing";
  };
  retiring: { readonly loaded: Loaded };
  recording: { readonly loaded: Loaded };
  granting: { readonly loaded: Loaded };
  /**
   * `lost`: the guest ran at the destination, and its QEMU there ended with pages missing, so the guest needs no more
   * pages. `silent`: *serving* has not heard the destination for too long, or the destination has answered that it
   * still waits for a grant. An answer over the stream then no longer counts, and the destination is asked by calls.
   */
  inDoubt: Granted & { readonly fault: MigrationFault; readonly lost?: true; readonly silent?: true };
  serving: Granted & { readonly running?: Running };
  stranded: { readonly fault: MigrationFault };
  /** `overruled`: the operator has said `--keep destination`, so a copy that runs here ends too. */
  releasing: Granted & { readonly running?: Running; readonly complete?: Complete; readonly overruled?: true };
  keeping: { readonly fault: MigrationFault; readonly undo: Undo };
  /** The fault says why the guest stayed here, and what it does now. */
  withdrawing: { readonly fault: MigrationFault };
  orphaned: { readonly fault: MigrationFault };
  doubled: Granted & { readonly fault: MigrationFault };
  released: object;
  kept: { readonly fault: MigrationFault };
}

export type State<K extends SourceStateName> = { readonly kind: K } & Payloads[K];
export type SourceState = { [K in SourceStateName]: State<K> }[SourceStateName];
/** The states to which K may lead. */
export type Next<K extends SourceStateName> = { [N in SourceEdges[K]]: State<N> }[SourceEdges[K]];
/** One function for each state that is not final. A step that SOURCE_STATES does not allow does not compile. */
export type Phases = { readonly [K in LiveSourceState]: (state: State<K>, cx: SourceContext) => Promise<Next<K>> };

/** Tells whether a migration has ended, so that an agent that starts again has nothing to do for it. */
export const isEnd = (state: SourceState): state is State<"released"> | State<"kept"> | State<"stranded"> =>
  state.kind === "released" || state.kind === "kept" || state.kind === "stranded";

/** Gives what every state of a granted guest passes on to the next state. */
export const grantedOf = ({ loaded, settings, postcopy, paused }: Granted): Granted => ({
  paused,
  ...defined({ loaded, settings, postcopy }),
});

/** Gives what the journal keeps of a granted guest: from the session, or from the record of an agent's earlier life. */
export const keptOf = ({ loaded, settings, postcopy, paused }: Granted): Kept =>
  loaded === undefined ? { settings, postcopy, paused } : loaded.session.kept;

/**
 * Gives what is left of a granted guest when its session is over. An agent that starts again reads the same from the
 * journal.
 */
export function withoutSession(granted: Granted): Granted {
  const { settings, postcopy } = keptOf(granted);
  return {
    paused: granted.paused,
    ...defined({ settings, postcopy }),
  };
}

/** Tells whether the guest runs at the destination with pages missing, or is about to. */
export const isOfPostcopy = ({ loaded, postcopy }: Granted): boolean =>
  (postcopy !== undefined && postcopy.complete !== true) || loaded?.session.isPostcopy === true;

/**
 * Gives what *keeping* must undo of a migration whose guest was granted, when the destination has refused the guest or
 * the operator has given it back.
 */
export function undoHandOver(granted: Granted): Undo {
  const { loaded, settings, postcopy, paused } = granted;
  if (loaded !== undefined) return undoSession(loaded.session, "granted");
  return {
    touched: true,
    accepted: true,
    mayBeWhole: !isOfPostcopy(granted),
    isRetired: true,
    granted: "givenBack",
    paused,
    ...defined({ settings, postcopy }),
  };
}

/**
 * Gives what *keeping* must undo of a migration with a session.
 * @param reached how far the migration came. `copying`: pages were sent; `whole`: the destination may have the whole
 *   guest; `recording`: `granted` may be on the disk; `granted`: the grant may have been said
 */
export function undoSession(session: TransferSession, reached: "copying" | "whole" | "recording" | "granted"): Undo {
  const { qmp, channel, settings, stoppedWith, paused } = session;
  return {
    qmp,
    channel,
    session,
    touched: true,
    accepted: true,
    // after post-copy's package the destination has the devices, but misses pages
    mayBeWhole: reached !== "copying" && !session.isPostcopy,
    isRetired: reached !== "copying",
    granted: reached === "granted" ? "givenBack" : reached === "recording" ? "unsaid" : "no",
    paused,
    ...defined({ settings, postcopy: stoppedWith }),
  };
}
