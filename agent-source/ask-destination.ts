/** Asking a destination what became of a grant, over and over: whoever granted a guest waits for proof, not for time. */
import { setTimeout as delay } from "node:timers/promises";
import { MigrationFault } from "../shared/fault.ts";
import { connectDestination } from "../shared/link/grpc-link.ts";
import type { Running, SettleAnswer, SettleCall } from "../shared/protocol/messages.ts";
import { orAborted } from "../shared/runtime/deferred.ts";
import { EPOCH, type SourceContext } from "./source-context.ts";

/** One question; the destination answers when it is decided, or says what is known after a while. */
const ANSWERS_WITHIN_MS = 8000;
const PAUSE_MIN_MS = 200;
const PAUSE_MAX_MS = 3000;

interface AskOptions {
  readonly timeoutMs?: number;
  /** Of a grant: the guest is not to be started. */
  readonly paused?: boolean;
}

/** @throws MigrationFault `peer-unreachable` and others of the link */
export async function askOnce(
  cx: SourceContext,
  ask: SettleCall["ask"],
  signal: AbortSignal,
  { timeoutMs = ANSWERS_WITHIN_MS, paused = false }: AskOptions = {},
): Promise<SettleAnswer> {
  const client = connectDestination(cx.call.to, cx.limits);
  try {
    return await client.settle({ migrationId: cx.id, token: cx.token, epoch: EPOCH, ask, paused }, timeoutMs, signal);
  } finally {
    client.close();
  }
}

export type Settled =
  | { readonly kind: "running"; readonly running?: Running }
  | { readonly kind: "refused"; readonly message: string };

/**
 * Repeats the grant until the destination runs the guest or proves that it refused.
 * @param paused as it was granted: the guest is not to be started
 * @param onNews what is known meanwhile: it cannot be reached, it knows of nothing, its QEMU has ended
 * @throws the signal's reason
 */
export async function askUntilSettled(
  cx: SourceContext,
  paused: boolean,
  signal: AbortSignal,
  onNews: (news: string) => void,
): Promise<Settled> {
  for (let pauseMs = PAUSE_MIN_MS; ; pauseMs = Math.min(PAUSE_MAX_MS, 2 * pauseMs)) {
    try {
      const answer = await askOnce(cx, "grant", signal, { paused });
      switch (answer.standing) {
        case "pulling":
        case "running":
          return answer.running === undefined ? { kind: "running" } : { kind: "running", running: answer.running };
        case "refused":
          return { kind: "refused", message: answer.reason };
        case "lost":
          onNews(`the destination started the guest, and its QEMU has ended since: ${answer.reason}`);
          break;
        case "unknown":
          onNews(`the destination knows of no such migration: ${answer.reason}`);
          break;
        case "waiting":
        case "starting":
          onNews("the destination has the guest and is about to start it");
      }
    } catch (thrown) {
      if (signal.aborted) throw MigrationFault.from(signal.reason);
      onNews(`the destination cannot be asked: ${MigrationFault.from(thrown).message}`);
    }
    await orAborted(delay(pauseMs, undefined, { signal }), signal);
  }
}
