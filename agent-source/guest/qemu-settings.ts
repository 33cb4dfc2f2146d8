/** What the feed needs of the source QEMU's migration settings, and what they were before. */
import type { SavedSettings } from "../../shared/protocol/ownership.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";

/**
 * The acknowledgement is withheld, and so QEMU never switches by itself; its events tell of bitmap syncs. With a
 * channel of its own for requested pages (postcopy-preempt) QEMU would wait for a second connection.
 */
const CAPABILITIES = [
  "return-path",
  "switchover-ack",
  "events",
  "pause-before-switchover",
  "postcopy-ram",
  "postcopy-preempt",
] as const;
/** `looking`: QEMU is never to complete, whatever becomes of the guest. */
export type Purpose = "precopy" | "postcopy" | "looking";

const SETTINGS: Readonly<Record<(typeof CAPABILITIES)[number], readonly Purpose[]>> = {
  "return-path": ["precopy", "postcopy", "looking"],
  "switchover-ack": ["precopy", "postcopy", "looking"],
  events: ["precopy", "postcopy", "looking"],
  // a guest that stands still needs no acknowledgement to be switched over
  "pause-before-switchover": ["looking"],
  "postcopy-ram": ["postcopy"],
  "postcopy-preempt": [],
};
const PARAMETERS = ["max-bandwidth", "downtime-limit", "avail-switchover-bandwidth"] as const;
/**
 * With a limit of 1 ms: a threshold of 1000 bytes, less than a page, so a bitmap sync comes only when a pass is
 * drained.
 */
const SMALL_BANDWIDTH = 1_000_000;
/** QEMU's longest downtime limit, with a bandwidth that makes the threshold larger than any guest. */
const DOWNTIME_LIMIT_MAX_MS = 2_000_000;
const BOUNDLESS_BANDWIDTH = 1e12;

/** What is set now: for the journal, so that an agent that starts again can put it back. */
export async function readSettings(qmp: QmpClient): Promise<SavedSettings> {
  const [capabilities, parameters] = await Promise.all([
    qmp.execute("query-migrate-capabilities"),
    qmp.execute("query-migrate-parameters"),
  ]);
  const ours = capabilities.filter(({ capability }) => CAPABILITIES.some((one) => one === capability));
  return {
    capabilities: Object.fromEntries(ours.map(({ capability, state }) => [capability, state])),
    parameters: Object.fromEntries(
      PARAMETERS.flatMap((name) => (parameters[name] === undefined ? [] : [[name, parameters[name]] as const])),
    ),
  };
}

/**
 * Sets what the feed needs. A capability that is to be off is left out where QEMU does not know it: a later version may
 * have dropped it, as QEMU 11 has dropped others.
 * @param found the settings of before; QEMU is asked for them where they are missing
 *
 * QEMU syncs its dirty bitmap when less than its threshold is left to send (migration.c, migration_iteration_run). Here
 * that is: nothing. A sync that comes while pages still wait in the bitmap, and finds no other page dirty, makes an
 * emulating QEMU (TCG) miss the next writes to the pages that wait: their dirty bits are cleared, but not the CPU's
 * note that it need not set them again (physmem, cpu_physical_memory_sync_dirty_bitmap; docs/decisions/0023).
 */
export async function applySettings(qmp: QmpClient, purpose: Purpose, found?: SavedSettings): Promise<void> {
  const { capabilities: known } = found ?? (await readSettings(qmp));
  await qmp.execute("migrate-set-capabilities", {
    capabilities: CAPABILITIES.map((capability) => ({
      capability,
      state: SETTINGS[capability].includes(purpose),
    })).filter(({ capability, state }) => state || capability in known),
  });
  // 8.1 cannot be told the bandwidth of the switchover: its own estimate with the default limit is the bound there
  await qmp.execute(
    "migrate-set-parameters",
    knowsBandwidth(qmp)
      ? { "max-bandwidth": 0, "downtime-limit": 1, "avail-switchover-bandwidth": SMALL_BANDWIDTH }
      : { "max-bandwidth": 0, "downtime-limit": 300 },
  );
}

/**
 * QEMU stops the guest in the next turn of its loop that sees this; it looks every 100 ms (BUFFER_DELAY), so the guest
 * may run on for so long. Only after the acknowledgement: without it QEMU would go on, and sync with pages waiting.
 */
export async function allowStop(qmp: QmpClient): Promise<void> {
  // another thread of QEMU takes the acknowledgement: after a round trip of its main loop it has had the time
  await qmp.execute("query-status");
  await qmp.execute("migrate-set-parameters", {
    "downtime-limit": DOWNTIME_LIMIT_MAX_MS,
    ...(knowsBandwidth(qmp) ? { "avail-switchover-bandwidth": BOUNDLESS_BANDWIDTH } : {}),
  });
}

/**
 * Stops the guest and lets QEMU begin post-copy in the next turn of its loop; its limits stay small, or it would
 * complete as a precopy migration instead. The acknowledgement is to be given behind it.
 *
 * QEMU is told first that it may begin. It does not begin while the guest runs and the switchover is not acknowledged.
 * Once the guest is stopped, QEMU begins post-copy, or completes its migration where no page is left. It completes with
 * the lock that its monitors need, and answers no command while its stream is full. So the agent must read the stream
 * from the stop on, also while it waits for an answer.
 *
 * The guest is stopped by the agent, not by QEMU's migration: one that was running when the migration stopped it, QEMU
 * runs again by itself when its socket breaks behind the last page, although it runs at the destination by then. A
 * guest that was paused stays paused (migration.c, migration_iteration_finish; docs/decisions/0024).
 * @param onStopping the stop has been said: the stream is read from now on
 */
export async function beginPostcopy(qmp: QmpClient, onStopping: () => void): Promise<void> {
  await qmp.execute("migrate-start-postcopy");
  const stopped = qmp.execute("stop");
  onStopping();
  await stopped;
}

/** "avail-switchover-bandwidth" is new in 8.2. */
function knowsBandwidth(qmp: QmpClient): boolean {
  const { major, minor } = qmp.greeting.version;
  return major > 8 || (major === 8 && minor >= 2);
}

/** Sets everything as it was found, so that whoever migrates this guest next finds it untouched. */
export async function restoreSettings(qmp: QmpClient, before: SavedSettings): Promise<void> {
  await qmp.execute("migrate-set-capabilities", {
    capabilities: Object.entries(before.capabilities).map(([capability, state]) => ({ capability, state })),
  });
  await qmp.execute("migrate-set-parameters", before.parameters);
}
