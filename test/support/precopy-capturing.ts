/**
 * Makes a source's PrecopyCapture over a sender in memory, with a clock that stands still until a test moves it. A test
 * calls the capture as the reader of QEMU's stream does.
 */
import { SyncPace } from "../../agent-source/capture/sync-pace.ts";
import { CopyObserver } from "../../agent-source/switchover/copy-observer.ts";
import { FIXED_COST_MS } from "../../agent-source/switchover/downtime-estimate.ts";
import { EtaEstimator } from "../../agent-source/switchover/eta.ts";
import type { Decision } from "../../agent-source/switchover/observation.ts";
import { type SwitchPlan, SwitchPolicy } from "../../agent-source/switchover/switch-policy.ts";
import { PrecopyCapture } from "../../agent-source/transfer/precopy-capture.ts";
import type { RamSetup } from "../../shared/qemu/stream/stream-reader.ts";
import { BLOCKS, PAGES, SECTION } from "./capturing.ts";
import { FakeClock } from "./fake-clock.ts";
import { type SendingOptions, sending } from "./sending.ts";

interface PrecopyCapturingOptions extends Pick<SendingOptions, "pendingSlots" | "frameBytes" | "creditWindowBytes"> {
  /** @default precopy with a downtime target of 300 ms and no deadline */
  readonly plan?: Partial<SwitchPlan>;
  /** How often QEMU may sync its bitmap, times a second. */
  readonly syncsPerSecond?: number;
}

export function precopyCapturing({ plan = {}, syncsPerSecond = 20, ...sizes }: PrecopyCapturingOptions = {}) {
  const clock = new FakeClock();
  const rig = sending({ ...sizes, pageCount: PAGES, clock, onRoom: () => capture.roomMade() });
  const { kernels, scheduler, sender, meter, put } = rig;
  const policy = new SwitchPolicy({
    ...{ strategy: "precopy", downtimeTargetMs: 300, deadlineMs: 0, onDeadline: "cancel" },
    ...plan,
  });
  /** What the test says of the guest and of the link. */
  const now = { standsStill: false, linkIsDown: false };
  const outlook = new EtaEstimator({ downtimeTargetMs: 300, fixedDowntimeMs: FIXED_COST_MS, syncsPerSecond });
  const observer = new CopyObserver({
    ...{ scheduler, sender, meter, policy, outlook, clock, holdPagesMax: 100, pageCount: PAGES },
    compressionRatio: () => 1,
    compressedFrames: () => 0,
    linkIsDown: () => now.linkIsDown,
    standsStill: () => now.standsStill,
    onOutlook: () => undefined,
    onStall: () => undefined,
  });
  /** How often the capture has called what it was given. */
  const calls = { layout: 0, firstPassDone: 0, stopped: 0, ended: 0, resumed: 0 };
  const decisions: Decision[] = [];
  const capture: PrecopyCapture = new PrecopyCapture({
    ...{ memory: kernels.memory, scheduler, sender, observer, clock, expectedBlocks: BLOCKS },
    pace: new SyncPace(syncsPerSecond, clock.monotonicMs()),
    onLayout: () => calls.layout++,
    onDecision: (decision) => decisions.push(decision),
    onFirstPassDone: () => calls.firstPassDone++,
    onStopped: () => calls.stopped++,
    onEnd: () => calls.ended++,
    standsStill: () => now.standsStill,
    resumeIntake: () => calls.resumed++,
  });
  const setup: RamSetup = { machineType: "pc", blocks: BLOCKS, ramSectionId: SECTION };
  /** Hands over the pages [from, to), each with a content of its own. @returns how many the capture has taken */
  const offer = (from: number, to: number): number => {
    for (let page = from; page < to; page++) if (!capture.page(page, put(1 + (page % 250)))) return page - from;
    return to - from;
  };
  return { ...rig, clock, capture, now, calls, decisions, setup, offer };
}
