/** Migrates a guest with QEMU alone and measures it. Ferry's figures are compared with these. */
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { MigrationParameters, QmpEvent } from "../../shared/qemu/qmp/qmp-types.ts";
import { bounded } from "./bounded.ts";
import type { GuestDefinitionFile } from "./guest.ts";
import type { Rig, RigGuest, RigHost } from "./rig.ts";

const XBZRLE_CACHE_BYTES = 256 << 20;
/**
 * The port of the migration. It may be the same for all, since each end has its own namespace, and on the loopback a
 * migration begins after the one before has ended.
 */
const PORT = 4444;

export interface BaselineOptions {
  readonly rig: Rig;
  /** The running guest. */
  readonly guest: RigGuest;
  readonly definition: GuestDefinitionFile;
  readonly method: "plain" | "xbzrle";
  /** A migration that has not ended after this time is cancelled, and the guest goes on at its source. */
  readonly giveUpAfterMs: number;
  readonly parameters?: MigrationParameters;
  /** Further capabilities, beside those of the method. */
  readonly capabilities?: readonly string[];
  /** Called with the source's monitor as soon as the migration has begun. */
  readonly onStarted?: (source: QmpClient) => void;
}

/** The capabilities that an earlier migration of the same QEMU may have left on. */
const CAPABILITIES = ["xbzrle", "multifd", "auto-converge", "postcopy-preempt", "postcopy-ram"];
/** The downtime target: QEMU's own default, which an agent may have changed. */
const DOWNTIME_MS = 300;

export interface Baseline {
  readonly completed: boolean;
  /** From the migrate command to the guest's RESUME at the destination, or until it was given up. */
  readonly totalSeconds: number;
  /** From the source's STOP to the destination's RESUME, by the time stamps that QEMU gives them. */
  readonly downtimeMs: number | undefined;
  /** All bytes that crossed the link meanwhile, in both directions. */
  readonly bytesOnWire: number;
  /** How often QEMU has synced its dirty bitmap. */
  readonly syncs: number;
  /** Where the guest runs now; the other QEMU has been ended. */
  readonly guest: RigGuest;
}

/**
 * Migrates with QEMU alone over TCP. The destination resumes the guest by itself, as it does without an agent. The
 * bandwidth is unlimited, and the downtime target is QEMU's own of 300 ms. The observer sockets must be free.
 * @throws Error when QEMU's migration fails, and MigrationFault when a monitor does
 */
export async function migrateWithQemu(options: BaselineOptions): Promise<Baseline> {
  const { rig, guest, definition } = options;
  const to = rig.other(guest.host);
  const incoming = await rig.startGuest(to, definition, ["-incoming", "defer"]);
  const source = await rig.observe(guest.host, guest.name);
  try {
    const destination = await rig.observe(to, guest.name);
    try {
      return await migrate(options, { to, incoming, source, destination });
    } finally {
      destination.close();
    }
  } finally {
    source.close();
  }
}

interface Pair {
  readonly to: RigHost;
  readonly incoming: RigGuest;
  readonly source: QmpClient;
  readonly destination: QmpClient;
}

async function migrate(options: BaselineOptions, pair: Pair): Promise<Baseline> {
  const { rig, guest, giveUpAfterMs } = options;
  const { to, incoming, source, destination } = pair;
  const uri = `tcp:${to.address}:${PORT}`;
  await configure(options, source);
  await configure(options, destination);
  await destination.execute("migrate-incoming", { uri });

  const patience = { timeoutMs: giveUpAfterMs };
  let stop: QmpEvent | undefined;
  const unsubscribe = source.subscribe((event) => {
    if (event.event === "STOP") stop = event;
  });
  const resumed = destination.waitFor("RESUME", undefined, patience).catch(() => undefined);
  const failed = source.waitFor("MIGRATION", ({ data }) => data.status === "failed", patience).catch(() => undefined);
  const bytesBefore = await rig.network.wireBytes();
  const startedUs = Date.now() * 1000;
  await source.execute("migrate", { uri });
  options.onStarted?.(source);
  const first = await Promise.race([resumed, failed]);
  const progress = await source.execute("query-migrate", undefined, { timeoutMs: 30_000 });
  const syncs = progress.ram?.["dirty-sync-count"] ?? 0;
  if (first?.event === "MIGRATION")
    throw new Error(`QEMU's migration failed: ${progress["error-desc"] ?? "no reason"}`);
  const totalSeconds = ((first?.timestampUs ?? Date.now() * 1000) - startedUs) / 1e6;
  if (first === undefined) await giveUp(source);
  unsubscribe();
  const bytesOnWire = (await rig.network.wireBytes()) - bytesBefore;
  const [keeper, other] = first === undefined ? [guest, incoming] : [incoming, guest];
  (first === undefined ? destination : source).close();
  await other.process.stop();
  // an agent refuses a guest that is set up for a migration by another program
  await setCapabilities(first === undefined ? source : destination, []);
  const downtimeMs =
    first === undefined || stop === undefined ? undefined : (first.timestampUs - stop.timestampUs) / 1e3;
  return { completed: first !== undefined, totalSeconds, downtimeMs, bytesOnWire, syncs, guest: keeper };
}

async function configure({ method, capabilities = [], parameters }: BaselineOptions, end: QmpClient): Promise<void> {
  const wanted = [...(method === "xbzrle" ? ["xbzrle"] : []), ...capabilities];
  await setCapabilities(end, wanted);
  const cache = method === "xbzrle" ? { "xbzrle-cache-size": XBZRLE_CACHE_BYTES } : {};
  const fixed = { "max-bandwidth": 0, "downtime-limit": DOWNTIME_MS };
  await end.execute("migrate-set-parameters", { ...fixed, ...cache, ...parameters });
}

/** Switches on these capabilities and events, and switches off the others of CAPABILITIES. */
export async function setCapabilities(end: QmpClient, wanted: readonly string[]): Promise<void> {
  const off = CAPABILITIES.filter((one) => !wanted.includes(one));
  const as = (state: boolean) => (capability: string) => ({ capability, state });
  // some capabilities may not be on together, so the unwanted ones are switched off first
  await end.execute("migrate-set-capabilities", { capabilities: off.map(as(false)) });
  await end.execute("migrate-set-capabilities", { capabilities: ["events", ...wanted].map(as(true)) });
}

async function giveUp(source: QmpClient): Promise<void> {
  const cancelled = source.waitFor("MIGRATION", ({ data }) => data.status === "cancelled", { timeoutMs: 30_000 });
  await source.execute("migrate_cancel");
  await bounded(cancelled, 30_000, "the end of the cancelled migration");
  const { running } = await source.execute("query-status");
  if (!running) throw new Error("The guest does not run after its migration was cancelled");
}
