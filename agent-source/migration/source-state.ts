/** What each state of a source migration holds (shared/protocol/source-states.ts has the edges). */
import type { MigrationFault } from "../../shared/fault.ts";
import type { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { Complete, Contract, Running } from "../../shared/protocol/messages.ts";
import type { SavedSettings, SourcePostcopy } from "../../shared/protocol/ownership.ts";
import type { LiveSourceState, SourceEdges, SourceStateName } from "../../shared/protocol/source-states.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { GuestDefinition } from "../../shared/runtime/guest/guest-definition.ts";
import type { Kept } from "../guest/kept.ts";
import type { FoundGuest } from "../guest/look-at-guest.ts";
import type { SwitchTimes } from "../report/migration-result.ts";
import type { TransferSession } from "../transfer/transfer-session.ts";
import type { SourceContext } from "./source-context.ts";

interface Asked {
  readonly definition: GuestDefinition;
  readonly qmp: QmpClient;
  readonly facts: FoundGuest;
}

/** What has to be undone before a migration can end as kept. */
export interface Undo {
  /** Open already; where it is not, the guest's monitor is connected to when `touched`. */
  readonly qmp?: QmpClient;
  readonly channel?: ResumingSource;
  readonly session?: Pick<TransferSession, "stop" | "awaitsShut" | "shut">;
  /** QEMU's settings may have been changed, or its migration begun. */
  readonly touched: boolean;
  /** The destination has accepted the guest, and is told that the guest stays here. */
  readonly accepted: boolean;
  /** The destination may have the whole guest by now. If the QEMU here has ended, that copy may be the only one. */
  readonly mayBeWhole: boolean;
  /**
   * This migration has brought the QEMU into `postmigrate`, or may have: the journal says `retiring` before the agent
   * retires a QEMU.
   */
  readonly isRetired: boolean;
  /**
   * Whether the journal may say `granted`, over which `plan` is written before the guest is started. `no`: it does not.
   * `unsaid`: it may, and the grant was not said. `givenBack`: it does, and the refusal was heard, or the operator has
   * given the guest back.
   */
  readonly granted: "no" | "unsaid" | "givenBack";
  /** The guest was paused: it is never started, whatever state QEMU is left in. */
  readonly paused: boolean;
  readonly settings?: SavedSettings;
  /** Post-copy has begun: the guest was stopped by this agent. */
  readonly postcopy?: SourcePostcopy;
}

/** The guest is whole at the destination. */
export interface Loaded {
  readonly session: TransferSession;
  readonly times: SwitchTimes;
  /** Why the switchover was begun when it was. */
  readonly reason: string;
}

/** `loaded` is missing where an agent that started again took the migration up. */
export interface Granted {
  readonly loaded?: Loaded;
  readonly settings?: SavedSettings;
  readonly postcopy?: SourcePostcopy;
  /** As it was granted. */
  readonly paused: boolean;
}

interface Payloads {
  planned: object;
  negotiating: Asked;
  staging: Asked & { readonly contract: Contract };
  copying: { readonly session: TransferSession };
  /** `nothing`: QEMU completes without being told to, since the guest stands still. */
  switching: {
    readonly session: TransferSession;
    readonly reason: string;
    readonly into: "destination" | "postcopy" | "nothing";
  };
  retiring: { readonly loaded: Loaded };
  recording: { readonly loaded: Loaded };
  granting: { readonly loaded: Loaded };
  /**
   * `lost`: the guest ran at the destination, and its QEMU there ended with pages missing, so that it needs no page any
   * more. `silent`: the guest ran there when the destination was last heard; what the stream said before is no news.
   */
  inDoubt: Granted & { readonly fault: MigrationFault; readonly lost?: true; readonly silent?: true };
  serving: Granted & { readonly running?: Running };
  stranded: { readonly fault: MigrationFault };
  /** `overruled`: the operator has said `--keep destination`, so that a copy that runs here ends too. */
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
/** The states that K may lead to. */
export type Next<K extends SourceStateName> = { [N in SourceEdges[K]]: State<N> }[SourceEdges[K]];
/** One function for each state that is not final; a step that SOURCE_STATES does not allow does not compile. */
export type Phases = { readonly [K in LiveSourceState]: (state: State<K>, cx: SourceContext) => Promise<Next<K>> };

/** True when a migration has ended: an agent that starts again has nothing to do for it. */
export const isEnd = (state: SourceState): state is State<"released"> | State<"kept"> | State<"stranded"> =>
  state.kind === "released" || state.kind === "kept" || state.kind === "stranded";

/** What every state of a granted guest passes on to the next one. */
export const grantedOf = ({ loaded, settings, postcopy, paused }: Granted): Granted => ({
  paused,
  ...(loaded === undefined ? {} : { loaded }),
  ...(settings === undefined ? {} : { settings }),
  ...(postcopy === undefined ? {} : { postcopy }),
});

/** What the journal keeps of a granted guest: from the session, or from the record of an earlier life of the agent. */
export const keptOf = ({ loaded, settings, postcopy, paused }: Granted): Kept =>
  loaded === undefined ? { settings, postcopy, paused } : loaded.session.kept;

/** The same without its session, which is over: what an agent that starts again would have of it. */
export function withoutFeed(granted: Granted): Granted {
  const { settings, postcopy } = keptOf(granted);
  return {
    paused: granted.paused,
    ...(settings === undefined ? {} : { settings }),
    ...(postcopy === undefined ? {} : { postcopy }),
  };
}

/** True when the guest runs at the destination with pages missing, or is about to. */
export const isOfPostcopy = ({ loaded, postcopy }: Granted): boolean =>
  (postcopy !== undefined && postcopy.complete !== true) || loaded?.session.isPostcopy === true;

/**
 * What *keeping* must undo of a migration that was granted, when the destination has refused the guest or the operator
 * has given it back.
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
    ...(settings === undefined ? {} : { settings }),
    ...(postcopy === undefined ? {} : { postcopy }),
  };
}

/**
 * What *keeping* must undo of a migration with a session.
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
    // behind post-copy's package the destination has the devices, and misses pages
    mayBeWhole: reached !== "copying" && !session.isPostcopy,
    isRetired: reached !== "copying",
    granted: reached === "granted" ? "givenBack" : reached === "recording" ? "unsaid" : "no",
    paused,
    ...(settings === undefined ? {} : { settings }),
    ...(stoppedWith === undefined ? {} : { postcopy: stoppedWith }),
  };
}
