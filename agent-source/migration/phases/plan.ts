import { MigrationFault } from "../../../shared/fault.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { orAborted } from "../../../shared/runtime/deferred.ts";
import { loadGuest } from "../../../shared/runtime/guest/guest-definition.ts";
import { memoryReturned } from "../../../shared/runtime/v8/return-memory.ts";
import { lookAtGuest } from "../../guest/look-at-guest.ts";
import { leaveAsFound } from "../return-to-source.ts";
import type { SourceContext } from "../source-context.ts";
import type { State } from "../source-state.ts";

/** What a source agent may take beside the budgets of its migrations: docs/operations.md, "Memory". */
const PROGRAM_BYTES = 208 << 20;

/** Reads the guest's definition and asks its QEMU; what this speaks against is refused with what the destination says. */
export async function plan(_state: State<"planned">, cx: SourceContext): Promise<State<"negotiating">> {
  await orAborted(memoryReturned(PROGRAM_BYTES), cx.cancelled);
  const definition = await loadGuest(cx.call.guest, cx.config);
  const qmp = await QmpClient.connect(definition.qmp, { timeoutMs: cx.config.qmpTimeoutMs, signal: cx.cancelled });
  try {
    const facts = await lookAtGuest(qmp, definition.qmp, cx);
    return { kind: afterSource("planned", "carriable"), definition, qmp, facts };
  } catch (thrown) {
    const guestNow = await leaveAsFound(qmp);
    qmp.close();
    throw MigrationFault.from(thrown).with({ guestNow });
  }
}
