/** Tests the frames of post-copy: a requested page overtakes all others, except those with which post-copy begins. */
import t from "tap";
import { LinkMeter } from "../../../agent-source/link/link-meter.ts";
import { FrameSender } from "../../../agent-source/send/frame-sender.ts";
import type { FrameSource } from "../../../agent-source/send/frame-source.ts";
import { noCounts } from "../../../agent-source/send/kind-counts.ts";
import { Pacer } from "../../../agent-source/send/pacer.ts";
import { PrecopyScheduler } from "../../../agent-source/send/precopy-scheduler.ts";
import { createSourceMemory } from "../../../agent-source/send/source-memory.ts";
import { CompressionChooser } from "../../../shared/codec/chooser.ts";
import type { SourceMessage } from "../../../shared/protocol/stream-messages.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { type Address, address } from "../../../shared/units.ts";

const FRAME_BYTES = 65536;

/** Makes frames of fixed sizes: 4096 bytes where they are urgent, 50 000 bytes otherwise. */
class FakeSource implements FrameSource {
  readonly frame = noCounts();
  frameAt = address(0);
  readonly reservedBuffers = 1;
  readonly isUnderWay = false;
  urgent = 0;
  plain = 0;
  get isEmpty(): boolean {
    return this.urgent === 0 && this.plain === 0;
  }
  get hasUrgent(): boolean {
    return this.urgent > 0;
  }
  quietMs(): number {
    return 0;
  }
  fillUrgent(at: Address): number {
    this.frameAt = at;
    return this.urgent-- > 0 ? 4096 : 0;
  }
  fill(at: Address): number {
    this.frameAt = at;
    if (this.plain === 0) return 0;
    this.plain--;
    return 50_000;
  }
}

function setUp() {
  const options = {
    pageCount: 16,
    delta: false,
    reorder: true,
    pendingSlots: 16,
    baseSlots: 0,
    frameBytes: FRAME_BYTES,
  };
  const { kernels, region, buffers } = createSourceMemory(options, loadKernels);
  const scheduler = new PrecopyScheduler(kernels, region, options);
  const sent: string[] = [];
  const compressing: ((length: number) => void)[] = [];
  const chooser = new CompressionChooser(1, 1);
  const sender: FrameSender = new FrameSender({
    kernels,
    buffers,
    frameBytes: FRAME_BYTES,
    source: scheduler,
    pages: scheduler.pages,
    channel: {
      send: (message: SourceMessage, taken?: () => void) => {
        if (message.kind === "frame") sent.push(`${message.sequence} ${message.frameKind} ${message.rawLength}`);
        if (taken !== undefined) queueMicrotask(taken);
        return true;
      },
      drained: () => Promise.resolve(),
      receive: () => undefined,
      pause: () => undefined,
      resume: () => undefined,
      close: () => undefined,
      closed: new Promise(() => undefined),
      peer: "nobody",
    },
    compress: () => new Promise((resolve) => compressing.push(resolve)),
    chooser,
    meter: new LinkMeter(),
    pacer: new Pacer(0),
    clock: systemClock,
    creditWindowBytes: 16 << 20,
    onSent: () => undefined,
    onRoom: () => undefined,
    onFault: (fault) => {
      throw fault;
    },
  });
  const source = new FakeSource();
  const finish = async (): Promise<void> => {
    for (const resolve of compressing.splice(0)) resolve(-1);
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { sender, source, sent, finish };
}

t.test("a requested page goes ahead of the frames that are being compressed", async (t) => {
  const { sender, source, sent, finish } = setUp();
  t.teardown(() => sender.stop());
  sender.takeFrom(source);
  source.plain = 2;
  sender.pump();
  t.same(sent, [], "both frames are being compressed");
  source.urgent = 1;
  sender.pump();
  t.same(sent, ["1 pages 4096"]);
  await finish();
  t.same(sent, ["1 pages 4096", "2 pages 50000", "3 pages 50000"], "frames are numbered as they go, without a gap");
});

t.test("a requested page does not go ahead of the discards and the package", async (t) => {
  const { sender, source, sent, finish } = setUp();
  t.teardown(() => sender.stop());
  sender.pagesHeld = true;
  sender.sendVerbatim(new Uint8Array(3000), "discards");
  sender.sendVerbatim(new Uint8Array(5000), "package");
  sender.takeFrom(source);
  source.urgent = 1;
  sender.pump();
  t.same(sent, []);
  await finish();
  sender.pump();
  t.same(sent, ["1 discards 3000", "2 package 5000", "3 pages 4096"]);
});

t.test("while pages are held, a requested page is sent all the same", async (t) => {
  const { sender, source, sent } = setUp();
  t.teardown(() => sender.stop());
  sender.pagesHeld = true;
  sender.takeFrom(source);
  source.plain = 1;
  source.urgent = 1;
  sender.pump();
  t.same(sent, ["1 pages 4096"]);
});

t.test("the end of the stream waits for all pages, and a requested page still goes before the others", async (t) => {
  const { sender, source, sent, finish } = setUp();
  t.teardown(() => sender.stop());
  sender.takeFrom(source);
  source.plain = 10;
  sender.sendVerbatim(new Uint8Array(19), "device");
  source.urgent = 1;
  sender.pump();
  t.same(sent, ["1 pages 4096"]);
  while (!source.isEmpty || sent.length < 12) await finish();
  t.equal(sent.at(-1), "12 verbatim 19");
});
