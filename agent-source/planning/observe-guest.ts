/**
 * Looks at a guest without moving it (docs/design/planning.md#looking-at-a-guest). QEMU migrates to this agent, and the
 * agent cancels that migration after the time that was asked for. QEMU can never stop the guest meanwhile, since it
 * first waits for an acknowledgement that the agent does not give (qemu-settings.ts). If the guest stands still, QEMU
 * does not wait for the acknowledgement. The agent has set QEMU to pause before it completes, and ends the look there.
 */
import { CHOICES } from "../../shared/codec/chooser.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { DirtySample } from "../../shared/model/dirty-curve.ts";
import { pageCountOf } from "../../shared/page/geometry.ts";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import type { SavedSettings } from "../../shared/protocol/ownership.ts";
import type { SourceFacts } from "../../shared/qemu/inspect/preflight.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { StreamReader } from "../../shared/qemu/stream/stream-reader.ts";
import { deferred, orAborted } from "../../shared/runtime/deferred.ts";
import { migrationFile } from "../../shared/runtime/guest/meeting-place.ts";
import { processorTimes } from "../../shared/runtime/host/guest-processors.ts";
import { processUsage } from "../../shared/runtime/host/process-usage.ts";
import { ZstdPool } from "../../shared/runtime/zstd/zstd-pool.ts";
import { address, PAGE_SIZE } from "../../shared/units.ts";
import { Intake } from "../capture/intake.ts";
import { applySettings, readSettings } from "../guest/qemu-settings.ts";
import { RunState } from "../guest/run-state.ts";
import { whyQemuFailed } from "../guest/why-qemu-failed.ts";
import { runAtSource } from "../migration/return-to-source.ts";
import { type SourceContext, sourceRecord } from "../migration/source-context.ts";
import { WINDOW_BYTES } from "../send/source-memory.ts";
import { GuestObserver } from "./guest-observer.ts";
import { measureHostSpeed, REFERENCE_BYTES } from "./host-speed.ts";
import { type DeltaSample, PageSamples } from "./page-samples.ts";

/** What zstd makes of a guest's pages at one level. */
interface LevelSample {
  readonly level: number;
  /** Mean encoded bytes of a page of the first copy; 0 where there was none. */
  readonly pageBytes: number;
  /** Mean encoded bytes of a dirtied page that is sent whole; 0 where there was none. */
  readonly dirtiedPageBytes: number;
  /** Raw bytes that one thread compresses in a second. */
  readonly bytesPerSecond: number;
  /** Encoded bytes over raw bytes of the deltas of each age, in the order of `Observed.deltas`. */
  readonly deltaRatios: readonly number[];
}

export interface Observed {
  readonly pages: number;
  readonly zeroPages: number;
  readonly firstCopySeconds: number;
  readonly observedSeconds: number;
  readonly dirty: readonly DirtySample[];
  readonly dirtyBytesPerSecond: number;
  readonly workingSetPages: number;
  /** True when the guest stood still, from the start or because somebody paused it meanwhile. */
  readonly paused: boolean;
  /** What pages that are sent again cost before zstd, by the age of their base. */
  readonly deltas: readonly Omit<DeltaSample, "at" | "length">[];
  /** What zstd makes of the pages, the weakest level first; empty when compression is off. */
  readonly levels: readonly LevelSample[];
  /** How many times as fast this host's processors are as those of the host on which USUAL_COSTS was measured. */
  readonly hostSpeed: number;
  readonly cost: ObservationCost;
}

/** What the guest and its host paid for being looked at. */
interface ObservationCost {
  /** Time from the first command that changes anything until the guest's QEMU is as it was before, seconds. */
  readonly seconds: number;
  readonly agentCpuSeconds: number;
  /**
   * Processor time of QEMU without its virtual processors, seconds. This field and those below it are missing where the
   * host does not tell them.
   */
  readonly qemuCpuSeconds?: number;
  /** The fraction of the time in which the guest's processors were ready and had to wait for one of the host's. */
  readonly processorsWaited?: number;
  /** The value of `processorsWaited` just before the guest was looked at. */
  readonly processorsWaitedBefore?: number;
}

/** How long the guest's processors are watched before the guest is looked at, milliseconds. */
const BEFORE_MS = 250;

/**
 * Looks at the guest, and closes `qmp`.
 * @param observeMs how long the paced looks last, milliseconds
 * @throws MigrationFault after the guest was left as it was found
 */
export async function observeGuest(
  cx: SourceContext,
  qmp: QmpClient,
  facts: SourceFacts,
  observeMs: number,
): Promise<Observed> {
  const pageCount = pageCountOf(facts.ramBlocks);
  const { frameBytes, zstdWorkers } = cx.config.transfer;
  const region = KERNEL_RESERVED_BYTES + WINDOW_BYTES;
  const encoded = region + PageSamples.regionBytes(frameBytes);
  const out = { at: encoded, length: Math.max(frameBytes, REFERENCE_BYTES) };
  const kernels = cx.createKernels(encoded + out.length + REFERENCE_BYTES);
  const samples = new PageSamples(kernels, address(region), pageCount, frameBytes);
  const failed = deferred<never>();
  failed.promise.catch(() => undefined);
  const observer: GuestObserver = new GuestObserver({
    kernels,
    samples,
    pageCount,
    clock: cx.clock,
    observeMs,
    looksPerSecond: cx.config.transfer.syncRate,
    resumeIntake: () => intake.resume(),
  });
  const intake: Intake = new Intake({
    memory: kernels.memory,
    window: address(KERNEL_RESERVED_BYTES),
    windowBytes: WINDOW_BYTES,
    reader: new StreamReader(kernels.memory, observer),
    clock: cx.clock,
    onFault: (fault) => void whyQemuFailed(qmp, fault).then(failed.reject),
  });
  const cost = await watchCost(cx, qmp);
  const runs = await RunState.begin(qmp);
  await look(cx, qmp, { intake, observer, runs, failed: failed.promise });
  const paid = await cost();
  const off = cx.call.options.compression === "off" || zstdWorkers === 0;
  const zstd = new ZstdPool(kernels.memory, 1);
  try {
    // the speed is measured before the levels, so that these are not measured with a thread that has just started
    const hostSpeed = await measureHostSpeed(zstd, kernels.memory, out.at + out.length, out.at, cx.clock);
    const levels = off ? [] : await tryLevels(cx, zstd, samples, out);
    const paused = runs.standsStill;
    return { ...counts(observer, pageCount), paused, deltas: samples.deltaSamples(), levels, hostSpeed, cost: paid };
  } finally {
    await zstd.close();
  }
}

function counts(observer: GuestObserver, pages: number) {
  const { contentPages, firstCopySeconds, observedSeconds, workingSetPages, dirtiedPages } = observer;
  return {
    pages,
    // pages that the guest's balloon calls free do not come; they count as zero pages, since neither costs anything
    zeroPages: Math.max(0, pages - contentPages),
    firstCopySeconds,
    observedSeconds,
    workingSetPages,
    dirty: observer.dirtySamples(),
    dirtyBytesPerSecond: (dirtiedPages * PAGE_SIZE) / Math.max(1e-3, observedSeconds),
  };
}

interface Look {
  readonly intake: Intake;
  readonly observer: GuestObserver;
  readonly runs: RunState;
  readonly failed: Promise<never>;
}

/** What runAtSource() must know of a guest that is only looked at: no destination has any part of it. */
const LOOKED_AT = { touched: true, accepted: false, mayBeWhole: false, isRetired: false, granted: "no" } as const;

async function look(cx: SourceContext, qmp: QmpClient, { intake, observer, runs, failed }: Look): Promise<void> {
  const path = migrationFile(cx.call.guest, cx, "stream");
  const monitor = qmp.closed.then((fault) => {
    throw fault ?? new MigrationFault("qmp-disconnected", "QEMU's monitor is closed");
  });
  monitor.catch(() => undefined);
  // in `pre-switchover` QEMU has nothing more to send, and waits
  qmp.subscribe(({ event, data }) => {
    if (event === "MIGRATION" && data.status === "pre-switchover") observer.nothingMore();
    if (event === "MIGRATION_PASS") observer.passBegins(Number(data.pass));
  });
  // QEMU is never told to complete here; it resumes the guest itself when its migration is cancelled
  const session = { stop: () => intake.close(), awaitsShut: false, shut: () => intake.shut() };
  let settings: SavedSettings | undefined;
  try {
    await intake.listen(path);
    settings = await readSettings(qmp);
    // an agent that is killed from here on puts the settings back when it starts again
    await cx.journal.write(cx.id, sourceRecord(cx, "plan", { settings, paused: runs.standsStill }));
    await applySettings(qmp, "looking", settings);
    const connected = intake.connected(cx.cancelled);
    await qmp.execute("migrate", { uri: `unix:${path}` });
    await connected;
    await orAborted(Promise.race([observer.done.promise, failed, monitor]), cx.cancelled);
  } finally {
    observer.stop();
    if (settings === undefined) {
      await intake.close();
      qmp.close();
    } else {
      const { guestNow } = await runAtSource({ ...LOOKED_AT, qmp, session, settings, paused: runs.standsStill }, cx);
      cx.log.info({ guestNow }, "the look at the guest has ended");
      await cx.journal.remove(cx.id);
    }
  }
}

async function watchCost(cx: SourceContext, qmp: QmpClient): Promise<() => Promise<ObservationCost>> {
  const threads = (await qmp.execute("query-cpus-fast")).map((one) => one["thread-id"]);
  const [startMs, start] = [cx.clock.monotonicMs(), await processorTimes(threads)];
  await cx.clock.sleep(BEFORE_MS);
  const [beganMs, began] = [cx.clock.monotonicMs(), await processorTimes(threads)];
  const agentBefore = processUsage().cpuSeconds;
  return async () => {
    const seconds = (cx.clock.monotonicMs() - beganMs) / 1000;
    const agentCpuSeconds = processUsage().cpuSeconds - agentBefore;
    const ended = await processorTimes(threads);
    if (start === undefined || began === undefined || ended === undefined) return { seconds, agentCpuSeconds };
    const ran = ended.ranSeconds - began.ranSeconds;
    const share = (waited: number, of: number): number => Math.max(0, waited / (of * threads.length));
    return {
      seconds,
      agentCpuSeconds,
      qemuCpuSeconds: Math.max(0, ended.qemuCpuSeconds - began.qemuCpuSeconds - ran),
      processorsWaited: share(ended.waitedSeconds - began.waitedSeconds, seconds),
      processorsWaitedBefore: share(began.waitedSeconds - start.waitedSeconds, (beganMs - startMs) / 1000),
    };
  };
}

interface Range {
  readonly at: number;
  readonly length: number;
}

/** Compresses the samples at each level. That costs the host some tens of milliseconds of one core. */
async function tryLevels(
  cx: SourceContext,
  zstd: ZstdPool,
  samples: PageSamples,
  out: Range,
): Promise<readonly LevelSample[]> {
  const { compression } = cx.call.options;
  const levels = typeof compression === "number" ? [compression] : CHOICES;
  const encode = async (ranges: readonly Range[], level: number): Promise<number> => {
    let encoded = 0;
    for (const { at, length } of ranges) {
      const found = length === 0 ? 0 : await zstd.compress(at, length, out.at, Math.min(length, out.length), level);
      // -1: zstd does not make the bytes fewer, so they are sent as they are
      encoded += found < 0 ? length : found;
    }
    return encoded;
  };
  const frames = samples.frames();
  const deltas = samples.deltaSamples();
  const raw = frames.reduce((sum, { length }) => sum + length, 0);
  const found: LevelSample[] = [];
  for (const level of levels) {
    const beganMs = cx.clock.monotonicMs();
    const encoded = await encode(frames, level);
    const seconds = Math.max(1e-6, (cx.clock.monotonicMs() - beganMs) / 1000);
    const deltaRatios: number[] = [];
    const dirtied = samples.dirtiedFrame();
    for (const one of deltas) deltaRatios.push(one.length === 0 ? 1 : (await encode([one], level)) / one.length);
    found.push({
      level,
      pageBytes: raw === 0 ? 0 : (PAGE_SIZE * encoded) / raw,
      dirtiedPageBytes: dirtied.length === 0 ? 0 : (PAGE_SIZE * (await encode([dirtied], level))) / dirtied.length,
      bytesPerSecond: raw / seconds,
      deltaRatios,
    });
  }
  return found;
}
