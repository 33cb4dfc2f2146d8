/** Tests the commands of QEMU's stream, above all those of post-copy, and the package. */
import t from "tap";
import { StreamReader } from "../../../../shared/qemu/stream/stream-reader.ts";
import {
  advise,
  advisedSetup,
  discard,
  fakePostcopy,
  openReturnPath,
  PostcopyRewriter,
  packaged,
  rewritePostcopy,
  switchoverStart,
} from "../../../support/fake-postcopy.ts";
import { fakeStream, ramStart, StreamBytes, streamHead } from "../../../support/fake-stream.ts";
import { rewriteStream } from "../../../support/rewrite-stream.ts";

const after = (...commands: StreamBytes[]): Buffer =>
  Buffer.concat([advisedSetup().done(), ...commands.map((one) => one.done())]);
const end = (type: number): StreamBytes => new StreamBytes().u8(type).be32(2).be64(0x10).u8(0x7e).be32(2);

t.test("a stream with post-copy is told in order, and is the same when it is written again", async (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const stream = fakePostcopy(seed);
    const got = rewritePostcopy(stream.bytes);
    t.ok(got.bytes.equals(stream.told));
    t.ok(got.package.equals(stream.package));
    t.strictSame(got.pages, stream.pages);
    t.equal(got.left, 0);
    t.match(got.log.slice(0, 6), ["ping 1", "advised", "layout", "stopped", "discard 0+1", "discard 3+1"]);
    t.match(got.log.at(-8), /^discard 36\+/);
    t.strictSame(got.log.slice(-7), ["discard 44+2", "ping 2", "package 300", "packageEnd", "ping 4", "ramEnd", "end"]);
  }
});

t.test("a stream with post-copy may be split at every byte", async (t) => {
  const stream = fakePostcopy(7, { packageBytes: 40 });
  const whole = rewritePostcopy(stream.bytes);
  let wrong = 0;
  for (let cut = 0; cut <= stream.bytes.length; cut++) {
    const got = rewritePostcopy(stream.bytes, [cut]);
    if (!got.bytes.equals(whole.bytes) || got.log.join() !== whole.log.join()) wrong++;
  }
  t.equal(wrong, 0);
  const each = rewritePostcopy(
    stream.bytes,
    Array.from({ length: stream.bytes.length }, (_, i) => i),
  );
  t.ok(each.bytes.equals(whole.bytes));
});

t.test("a sink that refuses pages is offered them again, before and after the package", async (t) => {
  const stream = fakePostcopy(11);
  let calls = 0;
  const got = rewritePostcopy(stream.bytes, [5000, 20000], { refuse: () => calls++ % 3 === 1 });
  t.strictSame(got.pages, stream.pages);
  t.ok(got.bytes.equals(stream.told));
});

t.test("with the capability on, the stream may complete as in precopy", async (t) => {
  const { bytes, prologue } = fakeStream({ seed: 5 });
  // OPEN_RETURN_PATH and PING stand after the configuration
  const at = streamHead("pc-q35-8.1").done().length + 14;
  const stream = Buffer.concat([bytes.subarray(0, at), advise().done(), bytes.subarray(at)]);
  const got = rewritePostcopy(stream);
  t.strictSame(got.log, ["ping 1", "advised", "layout", "stopped", "ramEnd", "end"]);
  t.equal(got.left, 0);
  const plain = rewriteStream(bytes);
  t.ok(got.bytes.includes(plain.devices));
  t.ok(got.bytes.includes(prologue.subarray(at - 14)));
});

t.test("a sink for post-copy is told of pings without the capability too", async (t) => {
  const got = rewritePostcopy(fakeStream({ seed: 2 }).bytes);
  t.strictSame(got.log, ["ping 1", "layout", "stopped", "ramEnd", "end"]);
});

t.test("the part of post-copy that comes first shows that the guest is stopped, which is told once", async (t) => {
  const one = [[0, 4096]] as const;
  const tail = ["discard 0+1", "package 1"];
  const opening = ["ping 1", "advised", "layout"];
  t.strictSame(rewritePostcopy(after(switchoverStart(), discard("pc.ram", one), packaged(1))).log, [
    ...opening,
    "stopped",
    ...tail,
  ]);
  t.strictSame(rewritePostcopy(after(discard("pc.ram", one), packaged(1))).log, [...opening, "stopped", ...tail]);
  t.strictSame(rewritePostcopy(after(packaged(1))).log, [...opening, "stopped", "package 1"]);
});

const HUGE = 4096 | (2 << 20);
const ONE = [[0, 4096]] as const;
/** Makes a discard in which these bytes are others. */
function wrongDiscard(bytes: Readonly<Record<number, number>>): Buffer {
  const made = discard("pc.ram", ONE).done();
  for (const [at, byte] of Object.entries(bytes)) made[Number(at)] = byte;
  return made;
}
const CUT = wrongDiscard({ 3: 0, 4: 20 });
const OTHER_VERSION = wrongDiscard({ 5: 1 });
const ENDLESS = wrongDiscard({ 13: 1 });

/** Streams that cannot be, each with the code and the reason of its refusal. */
const REFUSED: readonly [bytes: Buffer, code: string, message: RegExp][] = [
  [streamHead().bytes(advise(HUGE).done()).done(), "stream-unsupported", /pages of other sizes than 4096 \(0x201000\)/],
  [streamHead().bytes(advise(4096, 16384).done()).done(), "stream-unsupported", /pages of 16384 bytes/],
  [streamHead().u8(8).be16(3).be16(0).done(), "stream-unsupported", /capability dirty-bitmaps/],
  [streamHead().u8(8).be16(3).be16(8).done(), "stream-invalid", /postcopyAdvise of 8 bytes/],
  [
    streamHead().bytes(advise().done()).bytes(advise().done()).done(),
    "stream-invalid",
    /second command postcopyAdvise/,
  ],
  [after(advise()), "stream-invalid", /second command postcopyAdvise/],
  [
    streamHead()
      .bytes(ramStart([["pc.ram", 2]]))
      .bytes(advise().done())
      .done(),
    "stream-invalid",
    /after the start of RAM/,
  ],
  [
    streamHead()
      .bytes(ramStart([["pc.ram", 2]]))
      .bytes(packaged(9).done())
      .done(),
    "stream-invalid",
    /packaged without postcopyAdvise/,
  ],
  [streamHead().bytes(advise().done()).bytes(packaged(9).done()).done(), "stream-invalid", /before the start of RAM/],
  [streamHead().bytes(advise().done()).bytes(CUT).done(), "stream-invalid", /before the start of RAM/],
  [after(discard("pc.ram", [])), "stream-invalid", /postcopyRamDiscard of 9 bytes/],
  [after(discard("pc.ram", new Array(13).fill([0, 4096]))), "stream-invalid", /of 217 bytes with a name of 6/],
  [after(new StreamBytes().bytes(CUT)), "stream-invalid", /postcopyRamDiscard of 20 bytes with a name of 6/],
  [after(new StreamBytes().bytes(OTHER_VERSION)), "stream-unsupported", /discards of version 1/],
  [after(new StreamBytes().bytes(ENDLESS)), "stream-invalid", /whose name has no end/],
  [after(new StreamBytes().u8(8).be16(6).be16(65535)), "stream-invalid", /postcopyRamDiscard of 65535 bytes/],
  [after(discard("pc.rom", ONE)), "stream-invalid", /discard of RAM block pc\.rom, which was not listed/],
  [after(discard("pc.bios", [[0, 20480]])), "stream-invalid", /20480 bytes at offset 0 of RAM block pc\.bios.* 16384/],
  [after(discard("pc.bios", [[16384, 4096]])), "stream-invalid", /4096 bytes at offset 16384/],
  [after(discard("pc.bios", [[0, 0]])), "stream-invalid", /0 bytes at offset 0/],
  [after(discard("pc.bios", [[8, 4096]])), "stream-invalid", /4096 bytes at offset 8/],
  [after(discard("pc.bios", [[0, 4095]])), "stream-invalid", /4095 bytes/],
  [after(discard("pc.bios", [[2 ** 60, 4096]])), "stream-invalid", /as a length/],
  [after(packaged(0)), "stream-invalid", /empty package/],
  [after(packaged(2 ** 26 + 1)), "stream-unsupported", /package of 67108865 bytes, more than 67108864/],
  [after(packaged(1).u8(9), packaged(1)), "stream-invalid", /packaged in post-copy/],
  [after(packaged(1).u8(9), discard("pc.ram", ONE)), "stream-invalid", /postcopyRamDiscard in post-copy/],
  [after(packaged(1).u8(9), switchoverStart()), "stream-invalid", /switchoverStart in post-copy/],
  [after(packaged(1).u8(9), openReturnPath()), "stream-invalid", /openReturnPath in post-copy/],
  [after(packaged(1).u8(9), end(3), new StreamBytes().u8(4)), "stream-invalid", /type 4 after the end of RAM in post/],
  [after(packaged(1).u8(9), end(3), new StreamBytes().u8(0, 0)), "stream-invalid", /bytes after its end/],
  [
    after(packaged(1).u8(9), new StreamBytes().u8(2).be32(2).be64(0x40).name("pc.ram")),
    "stream-unsupported",
    /capability xbzrle/,
  ],
  [after(new StreamBytes().u8(8).be16(10).be16(7)), "stream-unsupported", /command recvBitmap/],
  [after(new StreamBytes().u8(8).be16(9).be16(0)), "stream-unsupported", /command postcopyResume/],
  [after(new StreamBytes().u8(8).be16(4).be16(0)), "stream-unsupported", /command postcopyListen/],
  [after(new StreamBytes().u8(8).be16(5).be16(0)), "stream-unsupported", /command postcopyRun/],
];

t.test("what cannot be in such a stream is refused with the reason", async (t) => {
  for (const [bytes, code, message] of REFUSED) t.throws(() => rewritePostcopy(bytes), { code, message });
});

t.test("a caller may lower the limit of the package, which holds before the package's bytes come", async (t) => {
  t.throws(() => rewritePostcopy(after(packaged(1000)), [], { limits: { packageBytesMax: 999 } }), {
    code: "stream-unsupported",
    message: /package of 1000 bytes, more than 999/,
  });
  const got = rewritePostcopy(after(packaged(1000)), [], { limits: { packageBytesMax: 1000 } });
  t.equal(got.log.at(-1), "package 1000");
});

t.test("without a sink for post-copy, the first command of post-copy is refused", async (t) => {
  t.throws(() => rewriteStream(fakePostcopy(1).bytes), {
    code: "stream-unsupported",
    message: /command postcopyAdvise/,
  });
});

t.test("the package is passed on as it comes, and may be larger than the reader's window", async (t) => {
  const memory = new Uint8Array(1000);
  // a rewriter writes to the end of its memory, which this one never does
  const sink = new PostcopyRewriter(new Uint8Array(1 << 17), () => false);
  const reader = new StreamReader(memory, sink, {}, sink);
  const setup = after(packaged(5000));
  memory.set(setup);
  t.equal(reader.consume(0, setup.length), setup.length);
  for (let left = 5000; left > 0; left -= 1000) {
    t.notOk(sink.log.includes("packageEnd"));
    t.equal(reader.consume(0, 1000), 1000);
  }
  t.equal(Buffer.concat(sink.packagePieces).length, 5000);
  t.equal(sink.log.at(-1), "packageEnd");
});
