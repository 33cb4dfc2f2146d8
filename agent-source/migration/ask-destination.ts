/**
 * Asks a destination what became of a grant, or tells it that the guest stays here, again and again until there is
 * proof. Each question is a call of its own; the transfer stream is not used.
 */
import { MigrationFault } from "../../shared/fault.ts";
import { connectDestination } from "../../shared/link/grpc/grpc-link.ts";
import { EPOCH } from "../../shared/protocol/ownership.ts";
import { askInDoubt } from "../../shared/protocol/source-states.ts";
import {
  DECIDES_WITHIN_MS,
  type Running,
  type SettleAnswer,
  type SettleCall,
} from "../../shared/protocol/stream-messages.ts";
import { orAborted } from "../../shared/runtime/deferred.ts";
import type { Sight } from "../guest/own-qemu.ts";
import type { SourceContext } from "./source-context.ts";

/** How long to wait for one answer, milliseconds. A destination that has not decided yet answers sooner than that. */
const ANSWERS_WITHIN_MS = DECIDES_WITHIN_MS + 3000;
/** The first pause between two questions, milliseconds. The pause doubles with each question, up to PAUSE_MAX_MS. */
const PAUSE_MIN_MS = 200;
const PAUSE_MAX_MS = 3000;

interface AskOptions {
  readonly timeoutMs?: number;
  /** With `grant`: true when the destination must not start the guest. */
  readonly paused?: boolean;
}

/**
 * Calls the destination once, and returns its answer. Every call asks how the guest stands. With `grant`, `withdraw` or
 * `kept` as `ask` the call also repeats the grant, withdraws the grant, or says that the guest stays here.
 * @throws MigrationFault `peer-unreachable`, and other faults of the link
 */
export async function askOnce(
  cx: SourceContext,
  ask: SettleCall["ask"],
  signal: AbortSignal,
  { timeoutMs = ANSWERS_WITHIN_MS, paused = false }: AskOptions = {},
): Promise<SettleAnswer> {
  const client = connectDestination(cx.call.to, cx.limits);
  try {
    const call = { migrationId: cx.id, token: cx.token, epoch: EPOCH, ask, paused };
    return await client.settle(call, timeoutMs, signal);
  } finally {
    client.close();
  }
}

/** How a grant was settled. */
export type Settled =
  | { readonly kind: "running"; readonly running?: Running }
  | { readonly kind: "refused"; readonly message: string }
  /** The destination runs the guest, and so does this host. */
  | { readonly kind: "doubled" };

/** What askUntilSettled() needs of an agent in doubt: how to look at its own host, and whom to tell. */
export interface Asking {
  /** True where the guest was granted paused: the destination does not start it. */
  readonly paused: boolean;
  /** True where the destination misses pages, which only the QEMU here has. */
  readonly isPostcopy: boolean;
  /** Looks at what the guest does on this host; called before each question. */
  readonly look: () => Promise<Sight>;
  /**
   * Called before each withdrawal, to stop the delivery of a grant that was sent before.
   * @param isActive true when somebody has started the guest here; false when the source QEMU has ended in post-copy,
   *   and when an earlier withdrawal is repeated while the source QEMU is retired
   */
  readonly onWithdraw: (isActive: boolean) => Promise<void>;
  /**
   * Called with what is known while nothing is settled, such as that the destination cannot be reached, knows of no
   * such migration, or has lost its QEMU.
   */
  readonly onNews: (news: string) => void;
}

/**
 * Repeats the grant until the destination runs the guest or proves that it refused. Before each question the agent
 * looks at its own host, and askInDoubt() chooses what it says: for example, where the guest runs here, the agent
 * withdraws the grant instead, and where the QEMU here cannot be asked, the agent only asks how the guest stands.
 * @throws the signal's reason
 */
export async function askUntilSettled(
  cx: SourceContext,
  { paused, isPostcopy, look, onWithdraw, onNews }: Asking,
  signal: AbortSignal,
): Promise<Settled> {
  for (let pauseMs = PAUSE_MIN_MS; ; pauseMs = Math.min(PAUSE_MAX_MS, 2 * pauseMs)) {
    try {
      const sight = await look();
      const ask = askInDoubt(sight.own, sight.anotherRuns, cx.doubt.isWithdrawn, isPostcopy);
      const isActive = sight.own === "active" || sight.anotherRuns;
      if (ask === "withdraw") await onWithdraw(isActive);
      const answer = await askOnce(cx, ask, signal, { paused });
      switch (answer.standing) {
        case "pulling":
        case "running":
          if (runsHere(sight)) return { kind: "doubled" };
          return answer.running === undefined ? { kind: "running" } : { kind: "running", running: answer.running };
        case "refused":
          return { kind: "refused", message: answer.reason };
        case "lost":
          onNews(`the destination started the guest, and its QEMU is not there any more: ${answer.reason}`);
          break;
        case "unknown":
          onNews(`the destination knows of no such migration: ${answer.reason}`);
          break;
        case "waiting":
        case "starting":
          onNews(`${ask === "withdraw" && !isActive ? WITHDRAWN : NEWS[ask]} (${answer.reason})`);
      }
    } catch (thrown) {
      if (signal.aborted) throw MigrationFault.from(signal.reason);
      onNews(`the destination cannot be asked: ${MigrationFault.from(thrown).message}`);
    }
    await orAborted(cx.clock.sleep(pauseMs, signal), signal);
  }
}

/** Tells whether a copy of the guest runs on this host, in whichever QEMU. */
export const runsHere = ({ status, anotherRuns }: Sight): boolean => status === "running" || anotherRuns;

/** The news of a withdrawn grant while the guest is not seen to run here. */
const WITHDRAWN = "the grant was withdrawn, and the destination is giving the guest up";

/** The news while the destination has decided nothing, by what the source has said. */
const NEWS: Readonly<Record<SettleCall["ask"], string>> = {
  grant: "the destination has the guest and is about to start it",
  withdraw: "somebody has started the guest at the source, and the destination is giving it up",
  standing:
    "the destination has a copy; the source QEMU cannot be looked at or has run since, so the grant is not repeated",
  kept: "",
};

/**
 * The longest pause between two tries to tell a destination, milliseconds; the pause doubles up to it. It may be long,
 * since a source that says `kept` has ended its own part, and only the copy at the destination waits.
 */
const TELLS_PAUSE_MAX_MS = 30_000;

/**
 * What a destination has answered to a source that keeps the guest. `ended`: the destination has refused the guest, or
 * has nothing of it. `running`: the destination runs the guest.
 */
export type Told = "ended" | "running";

/**
 * Tells the destination that the guest stays here, until the destination has heard it.
 * @param say `withdraw`; or `kept` where the journal says so already, after which the destination may end its copy
 * @throws the signal's reason
 */
export async function tellUntilHeard(cx: SourceContext, say: "withdraw" | "kept", signal: AbortSignal): Promise<Told> {
  for (let pauseMs = PAUSE_MIN_MS; ; pauseMs = Math.min(TELLS_PAUSE_MAX_MS, 2 * pauseMs)) {
    const told = await tellOnce(cx, say, signal).catch((thrown: unknown) => {
      if (signal.aborted) throw MigrationFault.from(signal.reason);
      cx.log.info(
        { fault: MigrationFault.from(thrown).message },
        "the destination has not heard yet that the guest stays at the source",
      );
      return undefined;
    });
    if (told !== undefined) return told;
    await orAborted(cx.clock.sleep(pauseMs, signal), signal);
  }
}

/** Tells the destination once. @returns undefined when the destination has not decided yet */
async function tellOnce(cx: SourceContext, say: "withdraw" | "kept", signal: AbortSignal): Promise<Told | undefined> {
  const { standing } = await askOnce(cx, say, signal);
  switch (standing) {
    case "refused":
    case "unknown":
      return "ended";
    // the guest ran there and has ended. The destination writes this down only for a source whose journal says `kept`
    case "lost":
      return say === "kept" ? "ended" : undefined;
    case "running":
    case "pulling":
      return "running";
    case "waiting":
    case "starting":
      return undefined;
  }
}
