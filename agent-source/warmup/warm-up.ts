/**
 * Warms a source agent up: before its first migration the agent moves a simulated guest from itself to itself, so that
 * the code that runs for each page and frame is compiled by then. The objects of the last round are kept: when the last
 * object of a shape is gone, V8 forgets what it has learned about that shape
 * (docs/design/warm-up.md#why-objects-are-kept).
 */
import { randomBytes } from "node:crypto";
import { connect } from "node:net";
import { join } from "node:path";
import { MigrationFault } from "../../shared/fault.ts";
import type { LinkLimits } from "../../shared/link/link.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { simulatedBlocks } from "../../shared/page/simulated-pages.ts";
import type { MigrateOptions } from "../../shared/protocol/report.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { SourceConfig } from "../../shared/runtime/config/config.ts";
import { deferred, endingAfter, orAborted } from "../../shared/runtime/deferred.ts";
import type { Logger } from "../../shared/runtime/log/log.ts";
import { returnMemory } from "../../shared/runtime/v8/return-memory.ts";
import { type Loopback, openLoopback } from "../../shared/warmup/loopback.ts";
import { askSimulatedMonitor } from "../../shared/warmup/simulated-monitor.ts";
import { LinkMeter } from "../link/link-meter.ts";
import { PeerInbox } from "../link/peer-inbox.ts";
import { probeLink } from "../link/probe-link.ts";
import { MigrationReport } from "../report/migration-report.ts";
import { shallowFrameBytes } from "../send/credit.ts";
import { buildSession, type SessionParts } from "../transfer/build-session.ts";
import { type BuildOptions, retainedBytes } from "../transfer/session-options.ts";
import { SimulatedQemu } from "./simulated-qemu.ts";

export interface WarmUpOptions {
  readonly config: SourceConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: LinkLimits;
  readonly createKernels: (byteLength: number) => PageKernels;
}

/**
 * How many rounds the warm-up has. V8 throws code away that it has optimised for the only instance of a class when a
 * second instance appears, so one round would not be enough.
 */
const ROUNDS = 3;
const PAGES = 8192;
const PASSES = 12;
const PASS_PAGES = 2048;
const POSTCOPY_PAGES = 6144;
/** The first page of a pass. Each pass shares half of its pages with the pass before. */
const firstOf = (pass: number): number => ((pass * PASS_PAGES) / 2) % (PAGES - PASS_PAGES);
/**
 * How long a round may take, milliseconds. The warm-up takes 2 s on a quiet machine. A busy machine is given more time,
 * since an agent that gave up would never be warm.
 */
const ROUND_WITHIN_MS = 60_000;
const MEMORY = { arenaBytes: 512 << 10, baseCacheBytes: 512 << 10 };
const CONTRACT = {
  protocolVersion: 2,
  codecs: ["xbzrle", "zstd"],
  frameBytes: 32 << 10,
  /**
   * This figure is no integer: V8 treats numbers that come by gRPC as doubles, and would compile other code for a small
   * integer.
   */
  creditWindowBytes: (1 << 20) + 0.5,
  strategy: "hybrid",
  postcopy: true,
  onDeadline: "cancel",
} as const;
const OPTIONS: MigrateOptions = {
  strategy: "hybrid",
  downtimeTargetMs: 1,
  deadlineMs: 0,
  onDeadline: "cancel",
  bandwidthBytesPerSecond: 0,
  delta: true,
  reorder: true,
  compression: "auto",
  verify: false,
  sharedDisksUnchecked: false,
  robust: false,
};
/** True for half of the pages, since much of a guest's memory is often zero. */
const isZero = (page: number): boolean => page % 8 < 4;
/** In post-copy the destination requests one page for this many frames. */
const REQUEST_EVERY = 2;
/** One of this many requests is for a page far away; the others go through the memory in order. */
const JUMPS_EVERY = 3;

/** The objects of the last round. */
let kept: unknown;

/**
 * Runs all rounds.
 * @param signal ends the warm-up early, since a migration begins or the agent stops
 * @throws everything that a migration may throw, and the reason of `signal`
 */
export async function warmUp(parts: WarmUpOptions, signal: AbortSignal): Promise<void> {
  for (let round = 0; round < ROUNDS && !signal.aborted; round++) {
    const late = (): MigrationFault =>
      new MigrationFault("timeout", `A round of the warm-up took longer than ${ROUND_WITHIN_MS} ms`);
    kept = await endingAfter(ROUND_WITHIN_MS, signal, parts.clock, (either) => moveNobody(parts, either), late);
  }
  await returnMemory();
}

/** True once the objects of a round are kept. For tests. */
export const isWarm = (): boolean => kept !== undefined;

async function moveNobody(parts: WarmUpOptions, signal: AbortSignal): Promise<unknown> {
  const { config, clock, limits } = parts;
  const path = join(config.runtimeDirectory, randomBytes(6).toString("hex"));
  await askSimulatedMonitor(`${path}.rehearsal-monitor`, signal);
  const loop = await openLoopback(`${path}.rehearsal`, limits, signal);
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const onFault = (fault: MigrationFault): void => failed.abort(fault);
  const meter = new LinkMeter();
  const [packaged, ended] = [deferred<void>(), deferred<void>()];
  loop.source.retain(retainedBytes(CONTRACT));
  const inbox = new PeerInbox(loop.source, meter, clock, onFault);
  const assembly = assemblyParts(parts, loop);
  const session = buildSession(assembly, {
    meter,
    linkIsDown: () => false,
    onOutlook: () => undefined,
    onDecision: () => undefined,
    onPackaged: () => packaged.resolve(),
    onStopped: () => undefined,
    onRead: () => undefined,
    onEnd: () => ended.resolve(),
    onFault,
    onQemuFault: onFault,
  });
  inbox.postcopy = session.postcopy;
  answer(loop, clock, () => session.postcopy?.isActive === true);
  const report = new MigrationReport("rehearsal", assembly.cx.call, clock);
  report.follow({ ...session, channel: loop.source });
  loop.watched(() => report.view());
  const socket = connect(await listening(session, `${path}.stream`));
  socket.on("error", () => undefined); // a write to the socket reports the error
  try {
    either.throwIfAborted();
    await orAborted(session.intake.connected(either), either);
    const qemu = new SimulatedQemu(socket, PAGES);
    // a ping that is sent before the destination has dialled in is lost, and the warm-up does not send it again
    // (docs/design/warm-up.md#what-is-moved)
    await orAborted(loop.source.drained(), either);
    await orAborted(probeLink(loop.source, inbox, meter, clock), either);
    inbox.onAck = ({ sequence, appliedBytes }) => session.sender.acknowledge(sequence, appliedBytes);
    await orAborted(play(qemu, session, meter, packaged.promise), either);
    await orAborted(ended.promise, either);
  } finally {
    socket.destroy();
    session.capture.stop();
    session.sender.stop();
    await session.intake.close();
    await session.zstd?.release();
    await loop.close();
  }
  return { session, inbox, loop, report };
}

async function listening({ intake }: SessionParts, path: string): Promise<string> {
  await intake.listen(path);
  return path;
}

function assemblyParts({ config, clock, log, createKernels }: WarmUpOptions, { source }: Loopback): BuildOptions {
  const transfer = { ...config.transfer, syncRate: 1000 };
  const compression = transfer.zstdWorkers === 0 ? "off" : OPTIONS.compression;
  const call = { guest: "rehearsal", to: source.peer, options: { ...OPTIONS, compression } };
  return {
    cx: { config: { ...config, memory: { ...config.memory, ...MEMORY }, transfer }, call, clock, log, createKernels },
    ramBlocks: simulatedBlocks(PAGES),
    contract: CONTRACT,
    channel: source,
    runs: { standsStill: false },
  };
}

/** Plays a destination that accepts everything, and requests pages in post-copy. */
function answer({ destination }: Loopback, clock: Clock, isPostcopy: () => boolean): void {
  let appliedBytes = 0;
  destination.receive((message) => {
    switch (message.kind) {
      case "clockPing":
        destination.send({ kind: "clockReply", nonce: message.nonce, destinationTimeUs: clock.nowUs() });
        return;
      case "probe":
        destination.send({ kind: "ack", sequence: message.sequence, appliedBytes: message.padding.length });
        return;
      case "layout":
        // nothing waits for `loaded` here: it is sent so that V8 sees one more kind of message
        destination.send({ kind: "loaded", lastSequence: 0, lastByteAtUs: clock.nowUs(), loadedAtUs: clock.nowUs() });
        return;
      case "frame":
        break;
      default:
        return;
    }
    const { sequence, body } = message;
    appliedBytes += body.length;
    destination.send({ kind: "ack", sequence, appliedBytes });
    if (sequence % REQUEST_EVERY === 1 && isPostcopy()) destination.send({ kind: "pong", value: sequence });
    if (sequence % REQUEST_EVERY !== 0 || !isPostcopy()) return;
    const firstPage = sequence % JUMPS_EVERY === 0 ? Math.imul(sequence, 0x9e3779b1) >>> 0 : sequence;
    destination.send({ kind: "pageRequest", firstPage: firstPage % PAGES, pageCount: 1 });
  });
}

/** Plays a whole migration: what the source QEMU writes, and what the phases of a migration do with the session. */
async function play(
  qemu: SimulatedQemu,
  session: SessionParts,
  meter: LinkMeter,
  packaged: Promise<void>,
): Promise<void> {
  const { capture, sender, intake, postcopy } = session;
  await qemu.start();
  await qemu.firstPass(isZero);
  for (let pass = 0; pass < PASSES; pass++) await qemu.pass(firstOf(pass), PASS_PAGES);
  const frameBytes = shallowFrameBytes(meter, CONTRACT.frameBytes);
  if (postcopy !== undefined) postcopy.scheduler.frameBytes = frameBytes;
  await sender.beShallow(frameBytes);
  capture.beginFinal();
  intake.acknowledgeSwitchover();
  await qemu.stop(0, POSTCOPY_PAGES);
  await packaged;
  postcopy?.flow();
  await qemu.lastPages();
}
