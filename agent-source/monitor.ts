/** The monitor of a guest whose QEMU this migration may have lost, or has not met yet. */
import { MigrationFault } from "../shared/fault.ts";
import type { SourceQemu } from "../shared/protocol/source-states.ts";
import { QmpClient } from "../shared/qemu/qmp-client.ts";
import { loadGuest } from "../shared/runtime/guest-definition.ts";
import type { SourceContext } from "./source-context.ts";

/**
 * Connects to the monitor of the guest's QEMU.
 * @returns undefined when nobody listens there: the QEMU has ended
 * @throws MigrationFault when that cannot be told: it hangs, another client holds it, the definition is gone
 */
export async function openMonitor(cx: SourceContext): Promise<QmpClient | undefined> {
  const definition = await loadGuest(cx.call.guest, cx.config);
  try {
    return await QmpClient.connect(definition.qmp, { timeoutMs: cx.config.qmpTimeoutMs });
  } catch (thrown) {
    const fault = MigrationFault.from(thrown);
    if (fault.code === "qmp-unreachable") return undefined;
    throw fault;
  }
}

/**
 * Has QEMU completed its migration, so that it never runs the guest by itself again? Of post-copy, which stops the guest
 * before it migrates it, QEMU never does: one that runs it was told to.
 */
export async function qemuOf(qmp: QmpClient | undefined, postcopy: boolean): Promise<SourceQemu> {
  if (qmp === undefined) return "gone";
  const { status } = await qmp.execute("query-status");
  if (postcopy) return status === "running" ? "active" : "retired";
  return status === "postmigrate" ? "retired" : "active";
}
