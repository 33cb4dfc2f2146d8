/** Tests `Intake`: pages that come through a real unix socket reach the sink as they were written. */
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { Intake } from "../../../agent-source/capture/intake.ts";
import type { MigrationFault } from "../../../shared/fault.ts";
import { StreamReader, type StreamSink } from "../../../shared/qemu/stream/stream-reader.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { address } from "../../../shared/units.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { seeded } from "../../support/fake-guest.ts";
import { type FakeStream, fakeStream } from "../../support/fake-stream.ts";

const WINDOW_AT = 4096;
const WINDOW_BYTES = 1 << 20;
/** One of this many pieces is left unread for a turn of the event loop. */
const LEFT_EACH = 3;

/** Records what it is given, and refuses every `refuseEach`-th page, as a sink with a full arena does. */
class RecordingSink implements StreamSink {
  readonly pages: { page: number; content: Buffer | undefined }[] = [];
  readonly devices: Buffer[] = [];
  readonly ended = deferred<void>();
  refusals = 0;
  private offered = 0;
  private readonly memory: Uint8Array;
  private readonly refuseEach: number;
  private readonly onRefused: () => void;

  constructor(memory: Uint8Array, refuseEach: number, onRefused: () => void) {
    this.memory = memory;
    this.refuseEach = refuseEach;
    this.onRefused = onRefused;
  }
  prologue(): void {}
  layout(): void {}
  page(page: number, at: number): boolean {
    if (++this.offered % this.refuseEach === 0) {
      this.refusals++;
      this.onRefused();
      return false;
    }
    this.pages.push({ page, content: Buffer.from(this.memory.subarray(at, at + 4096)) });
    return true;
  }
  zeroPage(page: number): boolean {
    this.pages.push({ page, content: undefined });
    return true;
  }
  partEnd(): boolean {
    return true;
  }
  stopped(): void {}
  ramEnd(): void {}
  device(start: number, end: number): void {
    this.devices.push(Buffer.from(this.memory.subarray(start, end)));
  }
  end(): void {
    this.ended.resolve();
  }
}

async function session(
  t: Test,
  stream: FakeStream,
  refuseEach: number,
  sliceBytes: () => number,
): Promise<RecordingSink> {
  const folder = mkdtempSync(join(tmpdir(), "ferry-intake-"));
  const memory = new Uint8Array(new SharedArrayBuffer(WINDOW_AT + WINDOW_BYTES));
  const failed = deferred<never>();
  const onFault = (fault: MigrationFault): void => failed.reject(fault);
  let asked = 0;
  const sink = new RecordingSink(memory, refuseEach, () => setImmediate(() => intake.resume()));
  const intake = new Intake({
    memory,
    window: address(WINDOW_AT),
    windowBytes: WINDOW_BYTES,
    reader: new StreamReader(memory, sink),
    mayRead: () => {
      if (++asked % LEFT_EACH !== 0) return true;
      setImmediate(() => intake.resume());
      return false;
    },
    clock: new FakeClock(),
    onFault,
  });
  const path = join(folder, "stream");
  await intake.listen(path);
  const connected = intake.connected(new AbortController().signal);
  const qemu = connect(path);
  t.teardown(async () => {
    qemu.destroy();
    await intake.close();
    rmSync(folder, { recursive: true, force: true });
  });
  await connected;
  for (let at = 0; at < stream.bytes.length; ) {
    const end = Math.min(stream.bytes.length, at + sliceBytes());
    await new Promise((resolve) => qemu.write(stream.bytes.subarray(at, end), resolve));
    at = end;
  }
  await Promise.race([sink.ended.promise, failed.promise]);
  t.equal(intake.bytesRead, stream.bytes.length);
  return sink;
}

t.test("every page arrives as it was written, however QEMU cuts its writes and the sink refuses pages", async (t) => {
  for (const [seed, refuseEach, most] of [
    [1, 1e9, 700_000],
    [2, 7, 700_000],
    [3, 150, 20_000],
  ] as const) {
    const stream = fakeStream({ seed, sections: 6, recordsPerSection: 150, deviceBytes: 5000 });
    const random = seeded(seed + 10);
    const sink = await session(t, stream, refuseEach, () => 1 + Math.floor(random() * most));
    t.equal(sink.refusals > 0, refuseEach < 1e9);
    t.same(
      sink.pages.map(({ page }) => page),
      stream.pages.map(({ page }) => page),
    );
    const wrong = sink.pages.filter(({ content }, index) => {
      const due = stream.pages[index]?.content;
      return content === undefined ? due !== undefined : due === undefined || !content.equals(due);
    });
    t.equal(wrong.length, 0, "each page has the content that was written");
    t.same(Buffer.concat(sink.devices), stream.devices);
  }
});
