/** What the feed needs of the source QEMU's migration settings, and what they were before. */
import type { SavedSettings } from "../shared/protocol/ownership.ts";
import type { QmpClient } from "../shared/qemu/qmp-client.ts";

/** The acknowledgement is withheld, and so QEMU never switches by itself; its events tell of bitmap syncs. */
const CAPABILITIES = ["return-path", "switchover-ack", "events"] as const;
const PARAMETERS = ["max-bandwidth", "downtime-limit", "avail-switchover-bandwidth"] as const;
/** QEMU's longest downtime limit: with it the next turn of its loop completes, once the acknowledgement is there. */
const DOWNTIME_LIMIT_MAX_MS = 2_000_000;
/** With a limit of 1 ms: a threshold of 1000 bytes, less than a page, so a bitmap sync comes only when a pass is drained. */
const SMALL_BANDWIDTH = 1_000_000;

/** What is set now: for the journal, so that an agent that starts again can put it back. */
export async function readSettings(qmp: QmpClient): Promise<SavedSettings> {
  const capabilities = await qmp.execute("query-migrate-capabilities");
  const parameters = await qmp.execute("query-migrate-parameters");
  const ours = capabilities.filter(({ capability }) => CAPABILITIES.some((one) => one === capability));
  return {
    capabilities: Object.fromEntries(ours.map(({ capability, state }) => [capability, state])),
    parameters: Object.fromEntries(
      PARAMETERS.flatMap((name) => (parameters[name] === undefined ? [] : [[name, parameters[name]] as const])),
    ),
  };
}

/** Sets what the feed needs. @param before says what this QEMU knows */
export async function applySettings(qmp: QmpClient, before: SavedSettings): Promise<void> {
  await qmp.execute("migrate-set-capabilities", {
    capabilities: CAPABILITIES.map((capability) => ({ capability, state: true })),
  });
  // 8.1 cannot be told the bandwidth of the switchover: its own estimate with the default limit is the bound there
  await qmp.execute(
    "migrate-set-parameters",
    "avail-switchover-bandwidth" in before.parameters
      ? { "max-bandwidth": 0, "downtime-limit": 1, "avail-switchover-bandwidth": SMALL_BANDWIDTH }
      : { "max-bandwidth": 0, "downtime-limit": 300 },
  );
}

/** From here on only the acknowledgement keeps QEMU from switching; it syncs with every section that is read. */
export async function armSettings(qmp: QmpClient): Promise<void> {
  await qmp.execute("migrate-set-parameters", { "downtime-limit": DOWNTIME_LIMIT_MAX_MS });
}

/** Sets everything as it was found, so that whoever migrates this guest next finds it untouched. */
export async function restoreSettings(qmp: QmpClient, before: SavedSettings): Promise<void> {
  await qmp.execute("migrate-set-capabilities", {
    capabilities: Object.entries(before.capabilities).map(([capability, state]) => ({ capability, state })),
  });
  await qmp.execute("migrate-set-parameters", before.parameters);
}
