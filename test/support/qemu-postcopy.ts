/**
 * Migrates a guest by QEMU's own post-copy and measures it, with or without QEMU's channel for requested pages. Ferry's
 * figures are compared with these.
 */
import { setTimeout } from "node:timers/promises";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { QmpEvent } from "../../shared/qemu/qmp/qmp-types.ts";
import { eventually } from "./bounded.ts";
import type { GuestDefinitionFile } from "./guest.ts";
import { setCapabilities } from "./qemu-baseline.ts";
import type { Rig, RigGuest } from "./rig.ts";

const PORT = 4446;
const PATIENCE = { timeoutMs: 120_000 };

export interface PostcopyBaselineOptions {
  readonly rig: Rig;
  readonly guest: RigGuest;
  readonly definition: GuestDefinitionFile;
  /** True for the capability postcopy-preempt, by which requested pages have a connection of their own. */
  readonly preempt: boolean;
  /** How many syncs of the dirty bitmap precopy makes before post-copy begins. With 0, post-copy begins at once. */
  readonly passes: number;
  /** How long precopy lasts before post-copy begins, in addition to `passes`, milliseconds. @default 0 */
  readonly headStartMs?: number;
  /** Called with the source's monitor as soon as the migration has begun. */
  readonly onStarted?: (source: QmpClient) => void;
}

export interface PostcopyBaseline {
  /** From the migrate command until the destination has every page. */
  readonly totalSeconds: number;
  /** From STOP to RESUME. */
  readonly downtimeMs: number;
  readonly bytesOnWire: number;
  /** Where the guest runs now; the other QEMU has been ended. */
  readonly guest: RigGuest;
}

/**
 * Migrates a guest by QEMU's post-copy. The destination resumes the guest by itself, as it does without an agent.
 * @throws Error when the migration does not come to its end
 */
export async function postcopyWithQemu(options: PostcopyBaselineOptions): Promise<PostcopyBaseline> {
  const { rig, guest, definition, preempt, passes, headStartMs = 0 } = options;
  const to = rig.other(guest.host);
  const incoming = await rig.startGuest(to, definition, ["-incoming", "defer"]);
  const source = await rig.observe(guest.host, guest.name);
  const destination = await rig.observe(to, guest.name);
  try {
    const uri = `tcp:${to.address}:${PORT}`;
    for (const end of [source, destination]) await configure(end, preempt);
    await destination.execute("migrate-incoming", { uri });
    let stop: QmpEvent | undefined;
    source.subscribe((event) => {
      if (event.event === "STOP") stop = event;
    });
    const resumed = destination.waitFor("RESUME", undefined, PATIENCE);
    const completed = destination.waitFor("MIGRATION", ({ data }) => data.status === "completed", PATIENCE);
    for (const event of [resumed, completed]) event.catch(() => undefined);
    const bytesBefore = await rig.network.wireBytes();
    const startedUs = Date.now() * 1000;
    await source.execute("migrate", { uri });
    options.onStarted?.(source);
    if (headStartMs > 0) await setTimeout(headStartMs);
    if (await hasPassed(source, passes)) await source.execute("migrate-start-postcopy");
    const [resume, complete] = [await resumed, await completed];
    if (stop === undefined) throw new Error("The guest was not stopped");
    const bytesOnWire = (await rig.network.wireBytes()) - bytesBefore;
    await setCapabilities(destination, []);
    return {
      totalSeconds: (complete.timestampUs - startedUs) / 1e6,
      downtimeMs: (resume.timestampUs - stop.timestampUs) / 1e3,
      bytesOnWire,
      guest: incoming,
    };
  } finally {
    source.close();
    destination.close();
    await guest.process.stop();
  }
}

async function configure(end: QmpClient, preempt: boolean): Promise<void> {
  await setCapabilities(end, ["postcopy-ram", ...(preempt ? ["postcopy-preempt"] : [])]);
  await end.execute("migrate-set-parameters", { "max-bandwidth": 0 });
}

/**
 * Waits until precopy has made its syncs.
 * @returns false if QEMU has completed by precopy before that, as with a guest that writes nothing
 */
async function hasPassed(source: QmpClient, passes: number): Promise<boolean> {
  const far = async (): Promise<boolean | undefined> => {
    const { status, ram } = await source.execute("query-migrate");
    if (status === "device" || status === "completed") return false;
    return (status === "active" && (ram?.["dirty-sync-count"] ?? 0) >= passes) || undefined;
  };
  return await eventually(far, { ...PATIENCE, everyMs: 5, what: `${passes} passes` });
}
