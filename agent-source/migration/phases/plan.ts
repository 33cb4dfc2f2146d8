/** The state *planned*: the guest's definition is read, and its QEMU is asked. */
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

/**
 * The memory that a source agent may take beside the budgets of its migrations, bytes (docs/operations.md, "Memory";
 * docs/decisions/0050). While the agent takes more, it still has memory of earlier migrations, and waits until that
 * memory is given back.
 */
const PROGRAM_BYTES = 208 << 20;

/**
 * Reads the guest's definition and asks its QEMU. A reason against the migration is not thrown here: *negotiating*
 * refuses for it, together with the reasons of the destination.
 */
export async function plan(_state: State<"planned">, cx: SourceContext): Promise<State<"negotiating">> {
  await orAborted(memoryReturned(PROGRAM_BYTES + (cx.keptMemory?.bytes ?? 0)), cx.cancelled);
  const definition = await loadGuest(cx.call.guest, cx.config);
  const qmp = await QmpClient.connect(
    definition.qmp,
    { timeoutMs: cx.config.qmpTimeoutMs, signal: cx.cancelled },
    cx.clock,
  );
  try {
    const facts = await lookAtGuest(qmp, definition.qmp, cx);
    return { kind: afterSource("planned", "carriable"), definition, qmp, facts };
  } catch (thrown) {
    const guestNow = await leaveAsFound(qmp);
    qmp.close();
    throw MigrationFault.from(thrown).with({ guestNow });
  }
}
