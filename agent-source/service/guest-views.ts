/**
 * Lists how the guests of this host stand. Each QEMU is asked at its monitor, which serves one client at a time: the
 * QEMU of a guest that is being migrated is not asked.
 */
import { MigrationFault } from "../../shared/fault.ts";
import { versionText } from "../../shared/protocol/handshake.ts";
import type { GuestView } from "../../shared/protocol/report.ts";
import { machineTypeOf } from "../../shared/qemu/inspect/preflight.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { SourceConfig } from "../../shared/runtime/config/config.ts";
import { type GuestDefinition, listGuests } from "../../shared/runtime/guest/guest-definition.ts";

/**
 * How long a monitor may take to greet, milliseconds. A guest whose monitor another client holds is shown as unreadable
 * after this time.
 */
const ASK_MS = 1500;

/** @param busy the id of the migration of each guest that has one under way: the agent uses that guest's monitor */
export async function listGuestViews(
  config: SourceConfig,
  busy: ReadonlyMap<string, string>,
  clock: Clock,
): Promise<GuestView[]> {
  const listing = await listGuests(config);
  return Promise.all(
    listing.map(async (one) => {
      const name = one.kind === "guest" ? one.definition.name : one.name;
      const migrationId = busy.get(name) ?? "";
      const definitionDigest = one.kind === "guest" ? one.definition.digest : "";
      const empty = { name, detail: "", qemuVersion: "", machineType: "", migrationId, definitionDigest };
      if (migrationId !== "") return { ...empty, state: "migrating" };
      if (one.kind === "unreadable") return { ...empty, state: "unreadable", detail: one.fault.message };
      try {
        return { ...empty, ...(await ask(one.definition, clock)) };
      } catch (thrown) {
        return { ...empty, state: "unreadable", detail: MigrationFault.from(thrown).message };
      }
    }),
  );
}

async function ask(definition: GuestDefinition, clock: Clock): Promise<Partial<GuestView> & { state: string }> {
  let qmp: QmpClient;
  try {
    qmp = await QmpClient.connect(definition.qmp, { timeoutMs: ASK_MS }, clock);
  } catch (thrown) {
    const fault = MigrationFault.from(thrown);
    if (fault.code === "qmp-unreachable") return { state: "off" };
    return { state: "unreadable", detail: fault.message };
  }
  try {
    const { status } = await qmp.execute("query-status");
    return { state: status, qemuVersion: versionText(qmp.greeting.version), machineType: await machineTypeOf(qmp) };
  } finally {
    qmp.close();
  }
}
