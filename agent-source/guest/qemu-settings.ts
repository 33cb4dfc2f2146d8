/** Sets the migration settings that an agent needs in the source QEMU, and puts them back as they were found. */
import type { SavedSettings } from "../../shared/protocol/ownership.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";

/**
 * The capabilities that are set. By `switchover-ack` QEMU never switches by itself, since the agent withholds the
 * acknowledgement. By `events` QEMU tells of its bitmap syncs. `postcopy-preempt` is always off: it gives requested
 * pages a channel of their own, and QEMU would wait for a second connection.
 */
const CAPABILITIES = [
  "return-path",
  "switchover-ack",
  "events",
  "pause-before-switchover",
  "postcopy-ram",
  "postcopy-preempt",
] as const;
/** What QEMU's migration is for. `looking`: a plan only observes the guest, so QEMU must never complete. */
export type Purpose = "precopy" | "postcopy" | "looking";

/** The purposes for which each capability is on. */
const SETTINGS: Readonly<Record<(typeof CAPABILITIES)[number], readonly Purpose[]>> = {
  "return-path": ["precopy", "postcopy", "looking"],
  "switchover-ack": ["precopy", "postcopy", "looking"],
  events: ["precopy", "postcopy", "looking"],
  // with a guest that stands still QEMU completes without an acknowledgement, so it has to pause before that
  "pause-before-switchover": ["looking"],
  "postcopy-ram": ["postcopy"],
  "postcopy-preempt": [],
};
const PARAMETERS = ["max-bandwidth", "downtime-limit", "avail-switchover-bandwidth"] as const;
/**
 * The bandwidth that QEMU is told while the guest must not stop, bytes per second. With a downtime limit of 1 ms QEMU's
 * threshold is 1000 bytes. That is less than a page, so QEMU syncs its bitmap only when a pass is drained
 * (docs/design/switchover.md#what-qemu-may-do-by-itself).
 */
const SMALL_BANDWIDTH = 1_000_000;
/** The longest downtime limit that QEMU takes. */
const DOWNTIME_LIMIT_MAX_MS = 2_000_000;
/**
 * The bandwidth that QEMU is told when the guest may stop, bytes per second. With DOWNTIME_LIMIT_MAX_MS the threshold
 * of QEMU is larger than any guest.
 */
const BOUNDLESS_BANDWIDTH = 1e12;

/** Reads what is set now. It goes into the journal, so that an agent that starts again can put it back. */
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
 * Sets what a migration for this purpose needs. A capability that is to be off is left out where QEMU does not know it:
 * a later version may have dropped it, as QEMU 11 has dropped others.
 *
 * QEMU syncs its dirty bitmap when less than its threshold is left to send (migration.c, migration_iteration_run). From
 * QEMU 8.2 on the threshold is set below one page here, so QEMU syncs only when it has sent every page of the bitmap.
 * An earlier sync would lose writes of an emulated guest (TCG). If such a sync finds no page newly dirty, QEMU clears
 * the dirty bits of the pages that still wait to be sent, but does not make the emulated CPU set these bits again at
 * the next write (physmem, cpu_physical_memory_sync_dirty_bitmap; docs/design/feed-pacing.md#when-qemu-may-sync).
 * @param found the settings as they were before; QEMU is asked for them where they are missing
 */
export async function applySettings(qmp: QmpClient, purpose: Purpose, found?: SavedSettings): Promise<void> {
  const { capabilities: known } = found ?? (await readSettings(qmp));
  await qmp.execute("migrate-set-capabilities", {
    capabilities: CAPABILITIES.map((capability) => ({
      capability,
      state: SETTINGS[capability].includes(purpose),
    })).filter(({ capability, state }) => state || capability in known),
  });
  // QEMU 8.1 cannot be told the bandwidth of the switchover. Its threshold there comes from its own estimate of the
  // bandwidth and the default downtime limit, 300 ms
  await qmp.execute(
    "migrate-set-parameters",
    knowsBandwidth(qmp)
      ? { "max-bandwidth": 0, "downtime-limit": 1, "avail-switchover-bandwidth": SMALL_BANDWIDTH }
      : { "max-bandwidth": 0, "downtime-limit": 300 },
  );
}

/**
 * Lets QEMU stop the guest. QEMU does so in the next turn of its loop that sees the new limits. It looks at them every
 * 100 ms (BUFFER_DELAY), so the guest may run on for that long. Call only after the acknowledgement was given: without
 * it QEMU would go on, and sync while pages wait.
 */
export async function allowStop(qmp: QmpClient): Promise<void> {
  // another thread of QEMU reads the acknowledgement. Once QEMU's main loop has answered a command, that thread has had
  // the time to read it
  await qmp.execute("query-status");
  await qmp.execute("migrate-set-parameters", {
    "downtime-limit": DOWNTIME_LIMIT_MAX_MS,
    ...(knowsBandwidth(qmp) ? { "avail-switchover-bandwidth": BOUNDLESS_BANDWIDTH } : {}),
  });
}

/**
 * Stops the guest and lets QEMU begin post-copy in the next turn of its loop. The limits of QEMU's bandwidth and
 * downtime stay small: with larger ones QEMU would complete as a precopy migration.
 *
 * The order is: QEMU is told that it may begin, then the guest is stopped, and then the caller acknowledges the
 * switchover. While the guest runs, QEMU does not begin without the acknowledgement. Once the guest is stopped, QEMU
 * begins post-copy, or completes its migration where no page is left. It completes with the lock that its monitors
 * need, and answers no command while its stream is full. So the agent must read the stream from the stop on, also while
 * it waits for an answer.
 *
 * The agent stops the guest itself, before QEMU's migration would. If the guest was running when QEMU's migration
 * stopped it, QEMU runs it again by itself when its socket breaks after the last page, although the guest runs at the
 * destination by then. A guest that was paused stays paused (migration.c, migration_iteration_finish;
 * docs/design/post-copy.md#the-guest-is-stopped-by-the-agent).
 * @param onStopping called when `stop` was said: the stream must be read from then on
 */
export async function beginPostcopy(qmp: QmpClient, onStopping: () => void): Promise<void> {
  await qmp.execute("migrate-start-postcopy");
  const stopped = qmp.execute("stop");
  onStopping();
  await stopped;
}

/** True when QEMU has the parameter `avail-switchover-bandwidth`, which is new in 8.2. */
function knowsBandwidth(qmp: QmpClient): boolean {
  const { major, minor } = qmp.greeting.version;
  return major > 8 || (major === 8 && minor >= 2);
}

/** Sets everything as it was found, so that the next tool that migrates this guest finds it untouched. */
export async function restoreSettings(qmp: QmpClient, before: SavedSettings): Promise<void> {
  await qmp.execute("migrate-set-capabilities", {
    capabilities: Object.entries(before.capabilities).map(([capability, state]) => ({ capability, state })),
  });
  await qmp.execute("migrate-set-parameters", before.parameters);
}
