/** What the feed needs of the source QEMU's migration settings, and what they were before. */
import type { QmpClient } from "../shared/qemu/qmp-client.ts";

/** The acknowledgement is withheld, and so QEMU never switches by itself; its events tell of bitmap syncs. */
const CAPABILITIES = ["return-path", "switchover-ack", "events"] as const;
const PARAMETERS = ["max-bandwidth", "downtime-limit", "avail-switchover-bandwidth"] as const;
/** QEMU's longest downtime limit: with it the next turn of its loop completes, once the acknowledgement is there. */
const DOWNTIME_LIMIT_MAX_MS = 2_000_000;
/** With a limit of 1 ms: a threshold of 1000 bytes, less than a page, so a bitmap sync comes only when a pass is drained. */
const SMALL_BANDWIDTH = 1_000_000;

export class QemuSettings {
  private readonly capabilities: readonly { readonly capability: string; readonly state: boolean }[];
  private readonly parameters: Readonly<Record<string, number | string | boolean>>;

  private constructor(
    capabilities: readonly { readonly capability: string; readonly state: boolean }[],
    parameters: Readonly<Record<string, number | string | boolean>>,
  ) {
    this.capabilities = capabilities;
    this.parameters = parameters;
  }

  /** Notes what is set, and sets what the feed needs. */
  static async apply(qmp: QmpClient): Promise<QemuSettings> {
    const capabilities = await qmp.execute("query-migrate-capabilities");
    const parameters = await qmp.execute("query-migrate-parameters");
    const ours = capabilities.filter(({ capability }) => CAPABILITIES.some((one) => one === capability));
    const before = PARAMETERS.filter((name) => parameters[name] !== undefined);
    const settings = new QemuSettings(ours, Object.fromEntries(before.map((name) => [name, parameters[name] ?? 0])));
    await qmp.execute("migrate-set-capabilities", {
      capabilities: CAPABILITIES.map((capability) => ({ capability, state: true })),
    });
    // 8.1 cannot be told the bandwidth of the switchover: its own estimate with the default limit is the bound there
    await qmp.execute(
      "migrate-set-parameters",
      before.includes("avail-switchover-bandwidth")
        ? { "max-bandwidth": 0, "downtime-limit": 1, "avail-switchover-bandwidth": SMALL_BANDWIDTH }
        : { "max-bandwidth": 0, "downtime-limit": 300 },
    );
    return settings;
  }

  /** From here on only the acknowledgement keeps QEMU from switching; it syncs with every section that is read. */
  static async arm(qmp: QmpClient): Promise<void> {
    await qmp.execute("migrate-set-parameters", { "downtime-limit": DOWNTIME_LIMIT_MAX_MS });
  }

  /** Sets everything as it was found, so that whoever migrates this guest next finds it untouched. */
  async restore(qmp: QmpClient): Promise<void> {
    await qmp.execute("migrate-set-capabilities", { capabilities: this.capabilities });
    await qmp.execute("migrate-set-parameters", this.parameters);
  }
}
