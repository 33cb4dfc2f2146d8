/** Tests `StreamReader`: streams are read in any pieces, and hostile streams are refused. */
import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { StreamReader, type StreamSink } from "../../../../shared/qemu/stream/stream-reader.ts";
import { type FakeStreamOptions, fakeStream, StreamBytes, twoPageSetup } from "../../../support/fake-stream.ts";
import { rewriteStream } from "../../../support/rewrite-stream.ts";

t.test("what the reader reads, the writer writes again byte for byte", async () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1e9 }),
      fc.boolean(),
      fc.array(fc.nat(60000), { maxLength: 20 }),
      (seed, commands, cuts) => {
        const options = { seed, commands, sections: 2, recordsPerSection: 4 };
        const stream = fakeStream(options);
        const sorted = cuts.map((cut) => cut % stream.bytes.length).sort((a, b) => a - b);
        const got = rewriteStream(stream.bytes, sorted);
        return (
          got.bytes.equals(fakeStream({ ...options, commands: false }).bytes) &&
          got.left === 0 &&
          got.log.join() === "layout pc-q35-8.1,stopped,ramEnd,end"
        );
      },
    ),
    { numRuns: 100 },
  );
});

t.test("a stream may be split at every byte", async (t) => {
  const options: FakeStreamOptions = { seed: 7, sections: 1, recordsPerSection: 2, deviceBytes: 40 };
  const stream = fakeStream(options);
  const whole = rewriteStream(stream.bytes, []);
  t.same(whole.pages, stream.pages);
  let wrong = 0;
  for (let cut = 0; cut <= stream.bytes.length; cut++) {
    const got = rewriteStream(stream.bytes, [cut]);
    if (!got.bytes.equals(whole.bytes) || got.log.at(-1) !== "end") wrong++;
  }
  t.equal(wrong, 0);
});

t.test("a stream may come one byte at a time", async (t) => {
  const stream = fakeStream({ seed: 3, sections: 1, recordsPerSection: 1, deviceBytes: 30 });
  const got = rewriteStream(
    stream.bytes,
    Array.from({ length: stream.bytes.length }, (_, i) => i),
  );
  t.ok(got.prologue.equals(stream.prologue));
  t.same(got.pages, stream.pages);
  t.equal(got.log.at(-1), "end");
});

t.test("a sink that refuses is offered the same page again, and loses none", async (t) => {
  const stream = fakeStream({ seed: 11 });
  let calls = 0;
  const got = rewriteStream(stream.bytes, [5000, 20000], () => calls++ % 3 === 1);
  t.same(got.pages, stream.pages);
  t.ok(got.bytes.equals(fakeStream({ seed: 11, commands: false }).bytes));
});

t.test("what a part cannot hold is refused with the reason, and with its place in the stream", async (t) => {
  const at = twoPageSetup().done().length + 5;
  const part = (): StreamBytes => twoPageSetup().u8(2).be32(2);
  const refused: readonly [bytes: StreamBytes, code: string, message: RegExp][] = [
    [part().be64(0x40).name("pc.ram"), "stream-unsupported", /XBZRLE records \(capability xbzrle\)/],
    [part().be64(0x60), "stream-unsupported", /capability xbzrle/],
    // no name comes after this flag
    [part().be64(0x200), "stream-unsupported", /multifd/],
    [part().be64(0x100).name("pc.ram"), "stream-unsupported", /capability compress/],
    [part().be64(0x80), "stream-unsupported", /hooks \(RDMA\)/],
    [part().be64(0x4), "stream-unsupported", /flags 0x4/],
    [part().be64(0x1), "stream-unsupported", /flags 0x1/],
    [part().be64(0xa).name("pc.ram"), "stream-unsupported", /flags 0xa/],
    [part().be64(0x30), "stream-unsupported", /flags 0x30/],
    [part().be64(0x1010), "stream-invalid", /end of section with an offset/],
    [
      part()
        .be64(8192 + 2)
        .name("pc.ram")
        .u8(0),
      "stream-invalid",
      /offset 8192 in RAM block pc\.ram of 8192 bytes/,
    ],
    [part().be32(0xffffffff).be32(0xfffff008).name("pc.ram"), "stream-invalid", /offset 18446744073709/],
    [part().be64(2).name("pc.rom").u8(0), "stream-invalid", /pc\.rom, which was not listed/],
    [part().be64(2).name("").u8(0), "stream-invalid", /which was not listed/],
    [part().be64(0x22).u8(0), "stream-invalid", /without a RAM block/],
    [part().be64(2).name("pc.ram").u8(1), "stream-unsupported", /filled with 1/],
  ];
  for (const [bytes, code, message] of refused) {
    t.throws(() => rewriteStream(bytes.done()), { code, message });
    t.throws(() => rewriteStream(bytes.done(), [at + 3]), { message: new RegExp(`at byte ${at}\\)`) });
  }
  t.throws(() => rewriteStream(part().be64(0x10).u8(0x7e).be32(9).done()), { message: /footer of section 9/ });
  t.throws(() => rewriteStream(part().be64(0x10).u8(4).be32(2).done()), { message: /send-section-footer/ });
  const full = part().be64(0x10).u8(0x7e).be32(2).u8(4).be32(3).name("timer");
  t.throws(() => rewriteStream(full.done()), { code: "stream-unsupported", message: /section timer before the end/ });
  t.throws(() => rewriteStream(twoPageSetup().u8(3).be32(9).done()), { message: /part of section 9/ });
});

t.test("the stop of the guest is told once, by whatever shows it first", async (t) => {
  const end = (bytes: StreamBytes): StreamBytes => bytes.u8(3).be32(2).be64(0x10).u8(0x7e).be32(2);
  const switchover = twoPageSetup().u8(8).be16(11).be16(0);
  t.same(rewriteStream(switchover.done()).log, ["layout pc", "stopped"]);
  t.same(rewriteStream(end(switchover).done()).log, ["layout pc", "stopped", "ramEnd"]);
  t.same(rewriteStream(twoPageSetup().u8(3).be32(2).done()).log, ["layout pc", "stopped"]);
});

t.test("bytes after the end are a fault", async (t) => {
  const { bytes } = fakeStream({ seed: 1 });
  t.throws(() => rewriteStream(Buffer.concat([bytes, Buffer.of(0)]), [bytes.length]), {
    code: "stream-invalid",
    message: new RegExp(`bytes after its end \\(at byte ${bytes.length}\\)`),
  });
});

t.test("device state is passed on as it comes, and not held for the end", async (t) => {
  const { bytes, devices } = fakeStream({ seed: 4, deviceBytes: 3000 });
  const head = bytes.length - devices.length;
  for (const length of [1, 2, 6, 7, 100, 2999, 3010])
    t.equal(rewriteStream(bytes.subarray(0, head + length)).devices.length, length);
});

t.test("reading pages makes no object for a page", async (t) => {
  const count = 20_000;
  const records = new StreamBytes().u8(2).be32(2).be64(2).name("pc.ram").u8(0);
  for (let i = 0; i < count; i++) records.be64(0x1000 * (i % 2) + 0x22).u8(0);
  const bytes = records.be64(0x10).u8(0x7e).be32(2).done();
  const setup = twoPageSetup().done();
  const memory = new Uint8Array(setup.length + bytes.length);
  memory.set(setup);
  memory.set(bytes, setup.length);
  const yes = (): boolean => true;
  const none = (): void => undefined;
  const told = { prologue: none, layout: none, stopped: none, ramEnd: none, device: none, end: none };
  const sink: StreamSink = { ...told, page: yes, zeroPage: yes, partEnd: yes };
  const reader = new StreamReader(memory, sink);
  reader.consume(0, setup.length);
  const round = (): number => reader.consume(setup.length, memory.length);
  for (let i = 0; i < 50; i++) round();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < 50; i++) round();
  // an object for each page would take 16 MB at least, and a collection in between only lowers the figure
  t.ok(process.memoryUsage().heapUsed - before < 1e6);
});

t.test("hostile bytes give a named fault, or the reader waits for more", async () => {
  const good = fakeStream({ seed: 99, sections: 1, recordsPerSection: 2 }).bytes;
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 }), (changes) => {
      const bytes = Buffer.from(good);
      for (const [at, value] of changes) bytes[at] = value;
      try {
        rewriteStream(bytes, []);
        return true;
      } catch (thrown) {
        return thrown instanceof MigrationFault && thrown.code.startsWith("stream-");
      }
    }),
    { numRuns: 2000, interruptAfterTimeLimit: 20_000 },
  );
});

t.test("any bytes after a good set-up end in a fault or a wait, and cost no memory", async () => {
  const setup = twoPageSetup().done();
  const field = fc.oneof(
    fc.uint8Array({ maxLength: 12 }),
    fc.constantFrom(0x2, 0x8, 0x10, 0x22, 0x28, 0x1022).map((flags) => new StreamBytes().be64(flags).done()),
    fc.constantFrom(1, 2, 3, 4, 8).map((type) => new StreamBytes().u8(type).be32(2).done()),
    fc.constant(new StreamBytes().name("pc.ram").done()),
    fc.constant(new StreamBytes().be64(0x10).u8(0x7e).be32(2).done()),
    fc.constant(Buffer.alloc(4096, 5)),
  );
  fc.assert(
    fc.property(fc.array(field, { maxLength: 30 }), fc.nat(5000), (fields, cut) => {
      const bytes = Buffer.concat([setup, ...fields]);
      try {
        // what is left is less than an item of the stream
        return rewriteStream(bytes, cut < bytes.length ? [cut] : []).left < 4400;
      } catch (thrown) {
        return thrown instanceof MigrationFault && thrown.code.startsWith("stream-");
      }
    }),
    { numRuns: 20_000, interruptAfterTimeLimit: 4000 },
  );
});
