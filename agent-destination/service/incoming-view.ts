/**
 * The view that an operator gets of a migration that comes to this host, made from the migration's state. It has no
 * figures: only the source agent knows them.
 */
import { defined } from "../../shared/defined.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { DestinationRecord } from "../../shared/protocol/ownership.ts";
import {
  type MigrationErrorView,
  type MigrationStatus,
  type MigrationView,
  NO_PROGRESS,
} from "../../shared/protocol/report.ts";
import type { DestinationContext } from "../migration/destination-context.ts";
import type { DestinationState } from "../migration/destination-state.ts";

/** What the view needs beside the state. */
export interface Known {
  readonly cx: Pick<DestinationContext, "id" | "guest" | "source" | "startedAtMs">;
  /** The address of this agent. */
  readonly here: string;
  /** True while the source is in contact. A copy whose source is silent waits for an operator. */
  readonly sourceIsThere: boolean;
  /** True when the QEMU of an adopted migration does not answer; the migration then waits for an operator. */
  readonly isUnseen: boolean;
  /** What the phases report beside the state; empty when they report nothing. */
  readonly news: string;
}

/** Makes the view of a migration. */
export function incomingView(state: DestinationState, known: Known): MigrationView {
  const { cx, here } = known;
  const { id, guest, source, startedAtMs } = cx;
  const error = errorOf(state, known);
  return {
    id,
    guest,
    source,
    destination: here,
    status: statusOf(state, known),
    startedAtMs,
    negotiated: {},
    // only the source knows the figures of a migration
    progress: NO_PROGRESS,
    ...defined({ error }),
  };
}

function statusOf(state: DestinationState, { sourceIsThere, isUnseen }: Known): MigrationStatus {
  switch (state.kind) {
    case "negotiating":
    case "staging":
      return "preparing";
    case "receiving":
      return "copying";
    case "loading":
      return "switching";
    case "loaded":
    case "withheld":
      return sourceIsThere ? "granting" : "inDoubt";
    case "adopting":
      return isUnseen ? "inDoubt" : "granting";
    case "owning":
      return "granting";
    case "starting":
      return state.postcopy === undefined || sourceIsThere ? "granting" : "inDoubt";
    case "pulling":
      return sourceIsThere ? "serving" : "inDoubt";
    case "refusing":
      return "undoing";
    case "discarding":
    case "discarded":
      return state.fault.code === "cancelled" ? "cancelled" : "failed";
    case "arrived":
      return "moved";
    case "lost":
      return "inDoubt";
    case "doubled":
      return "doubled";
  }
}

function errorOf(state: DestinationState, { cx, sourceIsThere, news }: Known): MigrationErrorView | undefined {
  const resolve = `ferry resolve ${cx.id} --keep destination starts it here, --keep source ends the copy, at this agent`;
  switch (state.kind) {
    case "starting":
    case "pulling":
      if (sourceIsThere || state.postcopy === undefined) return undefined;
      return view(
        new MigrationFault("in-doubt", `Only ${cx.source} has the pages that the guest misses, and it is silent`, {
          guestNow: "the guest is here, and stands still at the first page that it misses",
          advice: `Wait for the source where it comes back, since the pages then follow; where it is lost for good, save what the guest can still do, then ferry resolve ${cx.id} --keep source ends it, at this agent`,
        }),
      );
    case "loaded":
      if (sourceIsThere) return undefined;
      if (state.postcopy !== undefined)
        return view(
          new MigrationFault("in-doubt", `${cx.source} has neither granted the guest nor withdrawn it, and is silent`, {
            guestNow: "the guest is paused here without its pages, which only its source has",
            advice: `Find out what became of the source, and wait for it where it comes back; where it is lost for good, ferry resolve ${cx.id} --keep source ends what is here, at this agent`,
          }),
        );
      return view(
        new MigrationFault("in-doubt", `${cx.source} has neither granted the guest nor withdrawn it, and is silent`, {
          guestNow: "the guest is here as a whole, paused; its source may run it, or be gone",
          advice: `Find out what became of the source, and wait for it where it comes back; else ${resolve}`,
        }),
      );
    case "withheld":
      return view(
        new MigrationFault(
          "in-doubt",
          `It was refused here, and ${cx.source} has not heard so: ${state.fault.message}`,
          {
            guestNow: "the guest belongs to its source; a whole copy is kept here, paused",
            advice: `Wait until the source has heard it, and the copy ends; where the source is lost for good, ${resolve}`,
          },
        ),
      );
    case "lost":
      return view(
        new MigrationFault("in-doubt", "The guest was started here, and its QEMU has ended", {
          guestNow: "the guest does not run here; its source has a copy from before, unless it has let go of it",
          advice: `Settle it at the source first; then say here whose it is: ferry resolve ${cx.id} --keep source|destination`,
        }),
      );
    case "doubled":
      return view(state.fault);
    case "discarding":
    case "discarded":
    case "refusing":
      return view(
        state.fault.with({ guestNow: "the guest is at its source", advice: "See the source agent for this migration" }),
        news,
      );
    case "adopting":
      return news === "" ? undefined : view(unseen(state.record, cx.id, news));
    default:
      return undefined;
  }
}

/** Makes the fault of a QEMU that does not answer an agent which has started again. */
function unseen({ kind, qemu, postcopy }: DestinationRecord, id: string, news: string): MigrationFault {
  const process = qemu === undefined ? "its QEMU" : `its QEMU (process ${qemu.pid})`;
  const waits =
    kind === "running" && postcopy !== undefined
      ? `; the guest may stand still at a page that it misses, and then ${process} will never answer a new client`
      : "";
  return new MigrationFault("qemu-failed", news, {
    guestNow: `nothing is known of ${process} here, so the guest is neither started nor refused meanwhile${waits}`,
    advice: `The agent tries again and again; see whether another client holds the monitor of that QEMU, and see this agent's log; if it never answers, ferry resolve ${id} --keep source ends that QEMU, at this agent`,
  });
}

const view = ({ code, message, guestNow, advice }: MigrationFault, news = ""): MigrationErrorView => ({
  code,
  message: news === "" ? message : `${message} (${news})`,
  guestNow: guestNow ?? "",
  advice: advice ?? "See this agent's log for the migration's id",
  refusals: [],
});

/** Gives the state that the last record of an ended migration stands for. */
export function recordedState({ kind, reason }: DestinationRecord): DestinationState {
  switch (kind) {
    case "arrived":
      return { kind: "arrived" };
    case "running":
      return { kind: "lost" };
    case "waiting":
    case "refused":
      return {
        kind: "discarded",
        fault: new MigrationFault("refused", reason ?? "The migration was refused before this agent started"),
      };
  }
}
