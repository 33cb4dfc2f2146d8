import type { MigrationFault } from "../../shared/fault.ts";
import { afterSource } from "../../shared/protocol/source-states.ts";
import { askOnce } from "../ask-destination.ts";
import { asItWas, runHere } from "../guest-here.ts";
import { type SourceContext, sourceRecord } from "../source-context.ts";
import type { State, Undo } from "../source-state.ts";

/** The destination discards by itself what it cannot be told to. */
const WITHDRAWS_WITHIN_MS = 5000;

/** Makes sure that the guest runs here, or is paused here as it was, and nothing stays there; then the migration has ended. */
export async function keep(state: State<"keeping">, cx: SourceContext): Promise<State<"kept">> {
  const { undo, fault } = state;
  cx.log.warn({ code: fault.code, reason: fault.message }, "keeping the guest at the source");
  cx.report.follow(undefined);
  cx.report.failed(fault, `the guest is being made to ${undo.paused ? "stay paused" : "run"} at the source`);
  tellDestination(undo, fault, cx);
  if (!undo.touched) return { kind: afterSource("keeping", "done"), fault: await untouched(fault, undo) };
  const guestNow = await runHere(undo, cx);
  await cx.journal
    .write(cx.id, {
      ...sourceRecord(cx, "kept"),
      reason: { code: fault.code, message: fault.message },
    })
    .catch((thrown: unknown) =>
      cx.log.warn({ fault: String(thrown) }, "the next start of this agent looks at it again"),
    );
  return { kind: afterSource("keeping", "done"), fault: fault.with({ guestNow }) };
}

/** Over the stream where there is one; besides it, since the link may be what is broken. */
function tellDestination({ channel, accepted }: Undo, fault: MigrationFault, cx: SourceContext): void {
  // over one that is cut, or was for too long, nothing is said
  const wasCut = channel?.isCut === true || channel?.isOver === true;
  if (channel !== undefined) {
    channel.send({ kind: "failure", code: fault.code, message: fault.message, refusedToken: new Uint8Array() });
    channel.close();
  }
  if (!accepted || (channel !== undefined && !wasCut)) return;
  askOnce(cx, "withdraw", cx.leaving, { timeoutMs: WITHDRAWS_WITHIN_MS }).catch((thrown: unknown) =>
    cx.log.info({ fault: String(thrown) }, "the destination could not be told; it gives up by itself"),
  );
}

async function untouched(fault: MigrationFault, { qmp }: Undo): Promise<MigrationFault> {
  if (qmp === undefined) return fault.with({ guestNow: "the guest was not touched" });
  const guestNow = await asItWas(qmp);
  qmp.close();
  return fault.with({ guestNow });
}
