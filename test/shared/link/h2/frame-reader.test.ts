/**
 * Tests that frames are read however their bytes are cut, and that whatever else comes is named and bounded: by random
 * cuts of valid traffic, by traffic with changed bytes, and by random bytes.
 */
import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { FrameReader, type FrameTaker } from "../../../../shared/link/h2/frame-reader.ts";
import { FLAG, frameOf, HEAD_BYTES, pingFrame, prefaceFrames, TYPE } from "../../../../shared/link/h2/frames.ts";

const frame = (type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer => {
  const made = frameOf(type, flags, stream, payload.length);
  made.set(payload, HEAD_BYTES);
  return made;
};
const SETTINGS = prefaceFrames([[4, 70_000]]).subarray(24);

/** Reads pieces, and notes what was read. Pieces of data that follow each other are noted as one. */
class Noting implements FrameTaker {
  readonly noted: string[] = [];
  readonly reader = new FrameReader(this);
  private dataBytes: Buffer[] = [];

  read(...pieces: readonly Uint8Array[]): string[] {
    for (const piece of pieces) this.reader.take(Buffer.from(piece), piece.length);
    return this.noted;
  }

  dataBegins(length: number): void {
    this.noted.push(`begins ${length}`);
  }
  data(bytes: Buffer, from: number, to: number): void {
    this.dataBytes.push(Buffer.from(bytes.subarray(from, to)));
  }
  dataEnds(padding: number, endsStream: boolean): void {
    this.noted.push(`data ${Buffer.concat(this.dataBytes).toString("hex")} ${padding} ${endsStream}`);
    this.dataBytes = [];
  }
  headers(block: Buffer, endsStream: boolean): void {
    this.noted.push(`headers ${block.toString("hex")} ${endsStream}`);
  }
  reset(errorCode: number): void {
    this.noted.push(`reset ${errorCode}`);
  }
  settings(payload: Buffer): void {
    this.noted.push(`settings ${payload.toString("hex")}`);
  }
  ping(payload: Buffer, isAnswer: boolean): void {
    this.noted.push(`ping ${payload.toString()} ${isAnswer}`);
  }
  goAway(lastStream: number, errorCode: number): void {
    this.noted.push(`goAway ${lastStream} ${errorCode}`);
  }
  windowUpdate(stream: number, increment: number): void {
    this.noted.push(`window ${stream} ${increment}`);
  }
}

const TRAFFIC = Buffer.concat([
  SETTINGS,
  frame(TYPE.settings, FLAG.ack, 0),
  frame(TYPE.headers, FLAG.padded | FLAG.priority, 1, Buffer.from("0200000000ff88aabb0000", "hex")),
  frame(TYPE.continuation, FLAG.endHeaders, 1, Buffer.from("cc", "hex")),
  frame(0x7b, 0xff, 9, Buffer.from("a frame of an unknown type")),
  frame(TYPE.priority, 0, 7, Buffer.alloc(5)),
  frame(TYPE.data, 0, 1, Buffer.from("0102030405", "hex")),
  frame(TYPE.data, FLAG.padded, 1, Buffer.from("02a1a20000", "hex")),
  frame(TYPE.data, 0, 1),
  pingFrame(Buffer.from("12345678"), false),
  frame(TYPE.windowUpdate, 0, 1, Buffer.from("80000007", "hex")),
  frame(TYPE.goAway, 0, 0, Buffer.from("000000010000000b6d6f7265", "hex")),
  frame(TYPE.reset, 0, 1, Buffer.from("00000008", "hex")),
  frame(TYPE.headers, FLAG.endHeaders | FLAG.endStream, 1, Buffer.from("88", "hex")),
]);
const READ = [
  "settings 000400011170",
  "headers 88aabbcc false",
  "begins 5",
  "data 0102030405 0 false",
  "begins 5",
  "data a1a2 3 false",
  "begins 0",
  "data  0 false",
  "ping 12345678 false",
  "window 1 7",
  "goAway 1 11",
  "reset 8",
  "headers 88 true",
];

t.test("frames of every kind are read, whole and cut at every byte", async (t) => {
  t.same(new Noting().read(TRAFFIC), READ);
  t.same(new Noting().read(...Array.from(TRAFFIC, (byte) => Buffer.of(byte))), READ);
  for (let at = 0; at <= TRAFFIC.length; at++)
    t.same(new Noting().read(TRAFFIC.subarray(0, at), TRAFFIC.subarray(at)), READ, `cut at ${at}`);
});

t.test("frames are read however their bytes are cut", async (t) => {
  const cuts = fc.array(fc.nat({ max: TRAFFIC.length }), { maxLength: 30 });
  fc.assert(
    fc.property(cuts, (given) => {
      const at = [0, ...given.sort((a, b) => a - b), TRAFFIC.length];
      const pieces = at.slice(1).map((end, index) => TRAFFIC.subarray(at[index], end));
      return new Noting().read(...pieces).join() === READ.join();
    }),
  );
  t.pass();
});

const REFUSED: readonly (readonly [what: string, bytes: Buffer, message: RegExp])[] = [
  ["HTTP/1.1", Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"), /something else than HTTP\/2/],
  ["a frame ahead of SETTINGS", pingFrame(Buffer.alloc(8), false), /something else than HTTP\/2/],
  ["a frame that is too long", Buffer.concat([SETTINGS, Buffer.from("004001000000000001", "hex")]), /of 16385 bytes/],
  ["SETTINGS of 7 bytes", frame(TYPE.settings, 0, 0, Buffer.alloc(7)), /type 4 with 7 bytes/],
  ["a PING of 7 bytes", after(frame(TYPE.ping, 0, 0, Buffer.alloc(7))), /type 6 with 7 bytes/],
  ["a PING of a stream", after(frame(TYPE.ping, 0, 1, Buffer.alloc(8))), /type 6 for stream 1/],
  ["data of another stream", after(frame(TYPE.data, 0, 3, Buffer.alloc(8))), /type 0 for stream 3/],
  ["a window of another stream", after(frame(TYPE.windowUpdate, 0, 2, Buffer.alloc(4))), /a window for stream 2/],
  ["a pushed request", after(frame(TYPE.pushPromise, 4, 1, Buffer.alloc(4))), /pushed request/],
  ["a CONTINUATION of nothing", after(frame(TYPE.continuation, 4, 1)), /a CONTINUATION frame without a header block/],
  [
    "a header block that another frame cuts",
    after(frame(TYPE.headers, 0, 1), pingFrame(Buffer.alloc(8), false)),
    /a header block that is cut/,
  ],
  ["padding of a whole frame", after(frame(TYPE.data, FLAG.padded, 1, Buffer.of(2, 0))), /padding that is longer/],
  ["padding without its length", after(frame(TYPE.data, FLAG.padded, 1)), /padded data without a padding/],
  ["headers in padding", after(frame(TYPE.headers, 12, 1, Buffer.of(9, 1))), /headers that are shorter/],
  [
    "many CONTINUATIONs",
    after(frame(TYPE.headers, 0, 1), ...Array.from({ length: 20 }, () => frame(TYPE.continuation, 0, 1))),
    /16 frames/,
  ],
  [
    "a long header block",
    after(
      frame(TYPE.headers, 0, 1, Buffer.alloc(16_384)),
      ...Array.from({ length: 5 }, () => frame(TYPE.continuation, 0, 1, Buffer.alloc(16_384))),
    ),
    /more than 65536 bytes/,
  ],
];

function after(...frames: readonly Buffer[]): Buffer {
  return Buffer.concat([SETTINGS, ...frames]);
}

for (const [what, bytes, message] of REFUSED)
  t.test(`${what} is refused by name`, async (t) => {
    t.throws(() => new Noting().read(bytes), { code: "peer-lost", message });
    t.throws(() => new Noting().read(...Array.from(bytes, (byte) => Buffer.of(byte))), { code: "peer-lost", message });
  });

/** @returns false if the reader does anything but read, or throw a fault */
function behaves(bytes: Uint8Array): boolean {
  try {
    new Noting().read(bytes);
  } catch (thrown) {
    return thrown instanceof MigrationFault && thrown.code === "peer-lost";
  }
  return true;
}

t.test("random bytes, and traffic with changed bytes, are read or refused by name", async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => behaves(bytes) && behaves(after(Buffer.from(bytes)))),
    { numRuns: 1000 },
  );
  const change = fc.tuple(fc.nat({ max: TRAFFIC.length - 1 }), fc.nat({ max: 255 }));
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const changed = Buffer.from(TRAFFIC);
      for (const [at, byte] of changes) changed[at] = byte;
      return behaves(changed);
    }),
    { numRuns: 2000 },
  );
  t.pass();
});

t.test("nothing is read after a stop", async (t) => {
  const noting = new Noting();
  noting.settings = () => noting.reader.stop();
  t.same(noting.read(TRAFFIC, TRAFFIC), []);
});
