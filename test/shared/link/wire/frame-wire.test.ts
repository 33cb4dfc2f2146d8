/** Tests that frames which are written and read by hand are valid protobuf, and that a peer's bad bytes are refused. */
import { join } from "node:path";
import fc from "fast-check";
import protobuf from "protobufjs";
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { decodeFrame, encodeFrame, FRAME_HEAD_BYTES, isFrame } from "../../../../shared/link/wire/frame-wire.ts";
import type { Frame } from "../../../../shared/protocol/stream-messages.ts";
import { packageRoot } from "../../../../shared/runtime/package-root.ts";

const root = protobuf.loadSync(join(packageRoot(), "proto/ferry/v1/peer.proto"));
const TransferResponse = root.lookupType("ferry.v1.TransferResponse");

const KINDS = { pages: 1, verbatim: 2, discards: 3, package: 4 } as const;
const CODECS = { none: 1, zstd: 2 } as const;

const frames: fc.Arbitrary<Frame> = fc.record({
  kind: fc.constant("frame" as const),
  sequence: fc.maxSafeNat(),
  frameKind: fc.constantFrom("pages" as const, "verbatim" as const, "discards" as const, "package" as const),
  codec: fc.constantFrom("none" as const, "zstd" as const),
  rawLength: fc.nat({ max: 0xffffffff }),
  checksum: fc.uint8Array({ minLength: 8, maxLength: 8 }),
  body: fc.uint8Array({ maxLength: 600 }),
});

/** Makes of 8 bytes a 64-bit number as protobufjs takes it. */
const halves = (bytes: Uint8Array) => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, 8);
  return { low: view.getInt32(0, true), high: view.getInt32(4, true), unsigned: true };
};

/** Writes the same frame by protobufjs. */
const byProtobufjs = (frame: Frame): Uint8Array =>
  TransferResponse.encode(
    TransferResponse.create({
      frame: {
        sequence: frame.sequence,
        kind: KINDS[frame.frameKind],
        codec: CODECS[frame.codec],
        rawLength: frame.rawLength,
        checksum: halves(frame.checksum),
        body: frame.body,
      },
    }),
  ).finish();

const plain = (frame: Frame) => ({
  ...frame,
  checksum: Buffer.from(frame.checksum).toString("hex"),
  body: Buffer.from(frame.body).toString("hex"),
});

t.test("protobufjs reads what is written by hand", async () => {
  fc.assert(
    fc.property(frames, (frame) => {
      const read = TransferResponse.toObject(TransferResponse.decode(encodeFrame(frame)), {
        defaults: true,
        longs: String,
      }).frame;
      const checksum = Buffer.alloc(8);
      checksum.writeBigUInt64LE(BigInt(read.checksum));
      const back: Frame = {
        kind: "frame",
        sequence: Number(read.sequence),
        frameKind: (["pages", "verbatim", "discards", "package"] as const)[read.kind - 1]!,
        codec: read.codec === 1 ? "none" : "zstd",
        rawLength: read.rawLength,
        checksum,
        body: read.body,
      };
      return JSON.stringify(plain(back)) === JSON.stringify(plain(frame));
    }),
  );
});

t.test("a frame with room for its head before the body is written in place, and reads the same", async (t) => {
  fc.assert(
    fc.property(frames, fc.nat({ max: FRAME_HEAD_BYTES }), fc.boolean(), (frame, spare, shared) => {
      const start = spare + FRAME_HEAD_BYTES;
      const length = start + frame.body.length + 1;
      const memory = new Uint8Array(shared ? new SharedArrayBuffer(length) : new ArrayBuffer(length)).fill(0xee);
      memory.set(frame.body, start);
      const body = memory.subarray(start, start + frame.body.length);
      const message = encodeFrame({ ...frame, body, headRoom: FRAME_HEAD_BYTES });
      t.equal(message.buffer, memory.buffer);
      t.ok(message.equals(encodeFrame(frame)));
      t.ok(
        memory.subarray(0, spare).every((byte) => byte === 0xee),
        "nothing before the room for the head is touched",
      );
      t.equal(memory.at(-1), 0xee);
      t.not(
        encodeFrame({ ...frame, body, headRoom: 20 }).buffer,
        memory.buffer,
        "with too little room the frame is copied",
      );
    }),
    { numRuns: 50 },
  );
  const largest = { sequence: Number.MAX_SAFE_INTEGER, rawLength: 0xffffffff, checksum: new Uint8Array(8) };
  const body = new Uint8Array(8 << 20);
  const message = encodeFrame({ kind: "frame", frameKind: "pages", codec: "zstd", ...largest, body });
  t.ok(message.length - body.length <= FRAME_HEAD_BYTES);
});

t.test("what protobufjs writes is read by hand", async () => {
  fc.assert(
    fc.property(frames, (frame) => {
      const message = Buffer.from(byProtobufjs(frame));
      return isFrame(message) && JSON.stringify(plain(decodeFrame(message))) === JSON.stringify(plain(frame));
    }),
  );
});

t.test("a body in memory that is shared with threads can be sent", async (t) => {
  const body = new Uint8Array(new SharedArrayBuffer(5000), 1000, 3000).fill(7);
  const frame: Frame = {
    kind: "frame",
    sequence: 1,
    frameKind: "pages",
    codec: "none",
    rawLength: 3000,
    checksum: new Uint8Array(8).fill(9),
    body,
  };
  t.same(plain(decodeFrame(encodeFrame(frame))), plain(frame));
});

t.test("a message that is cut at any byte is the peer's fault", async () => {
  fc.assert(
    fc.property(frames, (frame) => {
      const whole = Buffer.from(encodeFrame(frame));
      for (let length = 0; length < whole.length; length++) {
        const fault = thrownBy(() => decodeFrame(whole.subarray(0, length)));
        if (!(fault instanceof MigrationFault) || fault.code !== "peer-invalid") return false;
      }
      return true;
    }),
    { numRuns: 40 },
  );
});

t.test("bytes of any kind are a frame or the peer's fault, never anything else", async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const fault = thrownBy(() => decodeFrame(Buffer.concat([Uint8Array.of(0x0a, bytes.length), bytes])));
      return fault === undefined || (fault instanceof MigrationFault && fault.code === "peer-invalid");
    }),
    { numRuns: 2000 },
  );
});

t.test("fields that a later version adds are skipped", async (t) => {
  const frame = { sequence: 3, kind: 1, codec: 1, rawLength: 2, body: Uint8Array.of(1, 2) };
  const inner = root.lookupType("ferry.v1.Frame").encode(frame).finish();
  const later = Buffer.concat([
    Uint8Array.of(0x38, 5),
    inner,
    Uint8Array.of(0x41, 1, 2, 3, 4, 5, 6, 7, 8, 0x4a, 2, 1, 1, 0x55, 1, 2, 3, 4),
  ]);
  const message = Buffer.concat([Uint8Array.of(0x0a, later.length), later, Uint8Array.of(0x78, 1)]);
  t.match(decodeFrame(message), { sequence: 3, frameKind: "pages", codec: "none", rawLength: 2 });
});

t.test("a kind or a codec that is not known is the peer's fault", async (t) => {
  const Inner = root.lookupType("ferry.v1.Frame");
  for (const fields of [
    { kind: 5, codec: 1 },
    { kind: 0, codec: 1 },
    { kind: 1, codec: 3 },
    { kind: 1, codec: 0 },
  ]) {
    const inner = Inner.encode({ sequence: 1, ...fields }).finish();
    const message = Buffer.concat([Uint8Array.of(0x0a, inner.length), inner]);
    t.throws(() => decodeFrame(message), { code: "peer-invalid" }, JSON.stringify(fields));
  }
});

function thrownBy(act: () => unknown): unknown {
  try {
    act();
    return undefined;
  } catch (thrown) {
    return thrown;
  }
}
