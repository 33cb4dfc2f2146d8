/**
 * Measures the source's whole path on one core:
 *
 *     feeder ─unix socket─> intake ─> PrecopyCapture ─> PrecopyScheduler ─> FrameSender ─> AcknowledgingChannel
 *
 * The feeder (feeder.c) is a process that writes like QEMU. The channel is inside this process, makes the message of
 * every frame, and acknowledges it. Compression is off. Only the CPU time of this process is counted; the feeder has a
 * core of its own.
 */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Intake } from "../../agent-source/capture/intake.ts";
import { SyncPace } from "../../agent-source/capture/sync-pace.ts";
import { LinkMeter } from "../../agent-source/link/link-meter.ts";
import { FrameSender } from "../../agent-source/send/frame-sender.ts";
import { Pacer } from "../../agent-source/send/pacer.ts";
import { PrecopyScheduler } from "../../agent-source/send/precopy-scheduler.ts";
import { createSourceMemory, WINDOW_BYTES } from "../../agent-source/send/source-memory.ts";
import { CopyObserver } from "../../agent-source/switchover/copy-observer.ts";
import { FIXED_COST_MS } from "../../agent-source/switchover/downtime-estimate.ts";
import { EtaEstimator } from "../../agent-source/switchover/eta.ts";
import { SwitchPolicy } from "../../agent-source/switchover/switch-policy.ts";
import { PrecopyCapture, type PrecopyCaptureOptions } from "../../agent-source/transfer/precopy-capture.ts";
import { CompressionChooser } from "../../shared/codec/chooser.ts";
import type { MigrationFault } from "../../shared/fault.ts";
import type { SourceChannel } from "../../shared/link/link.ts";
import { encodeFrame } from "../../shared/link/wire/frame-wire.ts";
import type { DestinationMessage, SourceMessage } from "../../shared/protocol/stream-messages.ts";
import { StreamReader } from "../../shared/qemu/stream/stream-reader.ts";
import { type Clock, systemClock } from "../../shared/runtime/clock.ts";
import { deferred } from "../../shared/runtime/deferred.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import {
  epilogue,
  FRAME_BYTES,
  GUEST_KINDS,
  type GuestKind,
  layoutOf,
  prologue,
  streamBytes,
  writePass,
} from "./guest-pages.ts";
import { type Group, type Round, summary, timedAsync } from "./measure.ts";

const PAGES = 32768;
const ARENA_BYTES = 64 << 20;
const BASE_BYTES = 256 << 20;
const CREDIT_BYTES = 16 << 20;
/** How many passes a round has. The first pass lays down the bases and does not count. */
const PASSES = 13;
const ROUNDS = 5;

/** Makes the message of each frame, as the gRPC channel does, throws the message away, and acknowledges the frame. */
class AcknowledgingChannel implements SourceChannel {
  readonly peer = "nobody";
  readonly closed = new Promise<undefined>(() => {});
  messageBytes = 0;
  onAck: (sequence: number, appliedBytes: number) => void = () => {};
  private appliedBytes = 0;
  private readonly untaken: (() => void)[] = [];
  private sequence = 0;

  send(message: SourceMessage, taken?: () => void): boolean {
    if (message.kind !== "frame") return true;
    this.messageBytes += encodeFrame(message).length;
    this.sequence = message.sequence;
    this.appliedBytes += message.body.length;
    if (taken !== undefined) this.untaken.push(taken);
    if (this.untaken.length === 1) setImmediate(() => this.answer());
    return true;
  }
  drained = async (): Promise<void> => {};
  receive(_: (message: DestinationMessage) => void): void {}
  pause(): void {}
  resume(): void {}
  close(): void {}

  private answer(): void {
    for (const taken of this.untaken.splice(0)) taken();
    this.onAck(this.sequence, this.appliedBytes);
  }
}

/** Makes what the feeder writes: everything before the pages, two passes, and everything after the pages. */
function pieces(kind: GuestKind): Uint8Array[] {
  const passes = ([0, 1] as const).map((version) => {
    const memory = new Uint8Array(streamBytes(PAGES));
    const end = writePass({ memory, at: 0, pages: PAGES, kind, version });
    return memory.subarray(0, end);
  });
  return [prologue(PAGES), ...passes, epilogue()];
}

interface Source {
  readonly intake: Intake;
  readonly scheduler: PrecopyScheduler;
  readonly channel: AcknowledgingChannel;
  /** Resolves when the first pass was captured. */
  readonly based: Promise<void>;
  readonly ended: Promise<void>;
  stop(): Promise<void>;
}

const OPTIONS = {
  pageCount: PAGES,
  delta: true,
  reorder: true,
  pendingSlots: ARENA_BYTES / PAGE_SIZE,
  baseSlots: BASE_BYTES / PAGE_SIZE,
  frameBytes: FRAME_BYTES,
};

/** Joins the parts of a source as build-session.ts does, but without QMP and without compression. */
function makeSource(): Source {
  const memory = createSourceMemory(OPTIONS, loadKernels);
  const { kernels } = memory;
  const scheduler = new PrecopyScheduler(kernels, memory.region, OPTIONS);
  const channel = new AcknowledgingChannel();
  const based = deferred<void>();
  const ended = deferred<void>();
  const failed = deferred<never>();
  const onFault = (fault: MigrationFault): void => failed.reject(fault);
  const meter = new LinkMeter();
  const clock = systemClock;
  const sender = new FrameSender({
    kernels,
    buffers: memory.buffers,
    frameBytes: FRAME_BYTES,
    source: scheduler,
    pages: scheduler.pages,
    channel,
    compress: async () => -1,
    chooser: new CompressionChooser("off", 1),
    meter,
    pacer: new Pacer(0),
    clock,
    creditWindowBytes: CREDIT_BYTES,
    onSent: () => undefined,
    onRoom: () => capture.roomMade(),
    onFault,
  });
  const capture = makeCapture(
    { memory: kernels.memory, scheduler, sender, meter, clock },
    {
      onFirstPassDone: () => {
        // from now on a capture paces the reading, except that of a migration's last pages, so the passes that follow
        // count as those
        capture.beginFinal();
        based.resolve();
      },
      onEnd: () => void sender.flushed().then(() => ended.resolve()),
      resumeIntake: () => intake.resume(),
    },
  );
  const { window } = memory;
  const intake = new Intake({
    memory: kernels.memory,
    window,
    windowBytes: WINDOW_BYTES,
    reader: new StreamReader(kernels.memory, capture),
    clock,
    onFault,
  });
  channel.onAck = (sequence, bytes) => sender.acknowledge(sequence, bytes);
  const stop = async (): Promise<void> => {
    capture.stop();
    sender.stop();
    await intake.close();
  };
  const unlessFailed = (promise: Promise<void>): Promise<void> => Promise.race([promise, failed.promise]);
  return { intake, scheduler, channel, based: unlessFailed(based.promise), ended: unlessFailed(ended.promise), stop };
}

interface CaptureParts {
  readonly memory: Uint8Array;
  readonly scheduler: PrecopyScheduler;
  readonly sender: FrameSender;
  readonly meter: LinkMeter;
  readonly clock: Clock;
}

/** Makes the capture of a guest that always runs, over a link that is always up. */
function makeCapture(
  { memory, scheduler, sender, meter, clock }: CaptureParts,
  hooks: Pick<PrecopyCaptureOptions, "onFirstPassDone" | "onEnd" | "resumeIntake">,
): PrecopyCapture {
  const plan = { strategy: "precopy", downtimeTargetMs: 300, deadlineMs: 0, onDeadline: "cancel" } as const;
  const observer = new CopyObserver({
    scheduler,
    sender,
    meter,
    policy: new SwitchPolicy(plan),
    // no page is held: every page is to be classified, and none is to be coalesced
    holdPagesMax: 0,
    outlook: new EtaEstimator({ downtimeTargetMs: 300, fixedDowntimeMs: FIXED_COST_MS, syncsPerSecond: 20 }),
    clock,
    pageCount: PAGES,
    compressionRatio: () => 1,
    compressedFrames: () => 0,
    linkIsDown: () => false,
    standsStill: () => false,
    onOutlook: () => {},
    onStall: () => {},
  });
  return new PrecopyCapture({
    memory,
    scheduler,
    sender,
    observer,
    clock,
    expectedBlocks: layoutOf(PAGES),
    pace: new SyncPace(20, clock.monotonicMs()),
    onLayout: () => {},
    onDecision: () => {},
    onStopped: () => {},
    standsStill: () => false,
    ...hooks,
  });
}

async function oneRound(folder: string, stream: readonly Uint8Array[]): Promise<{ round: Round; note: string }> {
  const source = makeSource();
  const path = join(folder, "stream");
  await source.intake.listen(path);
  const connected = source.intake.connected(new AbortController().signal);
  const lengths = stream.map((piece) => `${piece.length}`);
  const feeder: ChildProcess = spawn(join(folder, "feeder"), [path, ...lengths, `${PASSES}`], {
    stdio: ["pipe", "ignore", "inherit"],
  });
  try {
    for (const piece of stream) feeder.stdin?.write(piece);
    await connected;
    await source.based;
    const { scheduler, channel } = source;
    const before = channel.messageBytes;
    const counted = (PASSES - 1) * PAGES;
    const round = await timedAsync(counted * PAGE_SIZE, () => source.ended);
    const sent = ((channel.messageBytes - before) / counted).toFixed(1);
    const note = `${(1 / round.cpuSecondsPerGigabyte).toFixed(1)} GB a CPU second, ${sent} bytes a page sent, ${scheduler.pages.coalesced} coalesced`;
    return { round, note };
  } finally {
    await source.stop();
    if (feeder.exitCode === null) {
      feeder.kill();
      await once(feeder, "exit");
    }
  }
}

export const pipelineGroup: Group = {
  name: "pipeline",
  async run(report, wanted) {
    const nameOf = (kind: GuestKind): string => `capture, classify, send, ${kind} pages`;
    const kinds = GUEST_KINDS.filter((kind) => wanted(nameOf(kind)));
    if (kinds.length === 0) return;
    const folder = mkdtempSync(join(tmpdir(), "ferry-bench-"));
    try {
      const program = join(packageRoot(), "test", "bench", "feeder.c");
      execFileSync("gcc", ["-O2", "-o", join(folder, "feeder"), program], { stdio: "inherit" });
      for (const kind of kinds) {
        const stream = pieces(kind);
        await oneRound(folder, stream);
        const rounds: Round[] = [];
        let note = "";
        for (let i = 0; i < ROUNDS; i++) {
          const one = await oneRound(folder, stream);
          rounds.push(one.round);
          note = one.note;
        }
        report({ group: "pipeline", name: nameOf(kind), ...summary(rounds), note });
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};
