import { MigrationFault } from "../../shared/fault.ts";
import { afterSource } from "../../shared/protocol/source-states.ts";
import { askOnce } from "../ask-destination.ts";
import { runHere } from "../guest-here.ts";
import { GUEST_RUNS_HERE, type SourceContext, sourceRecord } from "../source-context.ts";
import type { State, Undo } from "../source-state.ts";

/** The destination discards by itself what it cannot be told to. */
const WITHDRAWS_WITHIN_MS = 5000;

/** Makes sure that the guest runs here and nothing stays there; then the migration has ended. */
export async function keep(state: State<"keeping">, cx: SourceContext): Promise<State<"kept">> {
  const { undo, fault } = state;
  cx.log.warn({ code: fault.code, reason: fault.message }, "keeping the guest at the source");
  cx.report.follow(undefined);
  cx.report.failed(fault, "the guest is being made to run at the source");
  tellDestination(undo, fault, cx);
  if (!undo.touched)
    return { kind: afterSource("keeping", "done"), fault: fault.with({ guestNow: await asItWas(undo) }) };
  const guestNow = await runHere(undo, cx);
  await cx.journal
    .write(cx.id, sourceRecord(cx, "kept", undefined))
    .catch((thrown: unknown) =>
      cx.log.warn({ fault: String(thrown) }, "the next start of this agent looks at it again"),
    );
  return { kind: afterSource("keeping", "done"), fault: fault.with({ guestNow }) };
}

/** Of a guest that this migration has not touched. */
async function asItWas({ qmp }: Undo): Promise<string> {
  if (qmp === undefined) return "the guest was not touched";
  try {
    const { status } = await qmp.execute("query-status");
    return status === "running" ? GUEST_RUNS_HERE : `the guest is at the source as it was: ${status}`;
  } catch (thrown) {
    return `the guest was not touched; its QEMU does not answer: ${MigrationFault.from(thrown).message}`;
  } finally {
    qmp.close();
  }
}

/** Over the stream where there is one; besides it, since the link may be what is broken. */
function tellDestination({ channel, accepted }: Undo, fault: MigrationFault, cx: SourceContext): void {
  if (channel !== undefined) {
    channel.send({ kind: "failure", code: fault.code, message: fault.message, refusedToken: new Uint8Array() });
    channel.close();
  }
  if (!accepted) return;
  askOnce(cx, "withdraw", cx.leaving, WITHDRAWS_WITHIN_MS).catch((thrown: unknown) =>
    cx.log.info({ fault: String(thrown) }, "the destination could not be told; it gives up by itself"),
  );
}
