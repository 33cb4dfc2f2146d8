/** Tests `Replay`: what a source's frames become, and which frames of a lying source are refused. */

import type { Socket } from "node:net";
import { PassThrough } from "node:stream";
import t from "tap";
import { Replay } from "../../../agent-destination/replay/replay.ts";
import { frameBufferBytes, PageFrameWriter } from "../../../shared/codec/page-frame.ts";
import type { MigrationFault } from "../../../shared/fault.ts";
import { KERNEL_RESERVED_BYTES } from "../../../shared/page/kernel-memory.ts";
import type { Contract } from "../../../shared/protocol/messages.ts";
import type { Frame } from "../../../shared/protocol/stream-messages.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { address } from "../../../shared/units.ts";
import { memoryTransfer } from "../../support/memory-link.ts";

const BLOCKS = [{ name: "pc.ram", byteLength: 64 * 4096, pageSize: 4096 }];
const contract: Contract = {
  protocolVersion: 1,
  codecs: ["xbzrle"],
  frameBytes: 65536,
  creditWindowBytes: 1 << 20,
  destinationQemuVersion: { major: 10, minor: 0, micro: 0 },
  destinationFreeMemoryBytes: 1,
  followUpMs: 1000,
  strategy: "precopy" as const,
  postcopy: false,
  strategies: ["precopy"],
  onDeadline: "cancel",
  postcopyObstacle: "",
  comparesDisks: true,
  warnings: [],
  measuresLink: false,
  ramBlocks: BLOCKS,
};
const kernels = loadKernels(KERNEL_RESERVED_BYTES + frameBufferBytes(65536) + 8192);
const AT = KERNEL_RESERVED_BYTES + 4096;

function setUp() {
  const written: Buffer[] = [];
  const acks: number[] = [];
  const allAcked = deferred<void>();
  const stream = new PassThrough();
  stream.on("data", (piece: Buffer) => written.push(Buffer.from(piece)));
  const { source, destination } = memoryTransfer();
  source.receive((message) => {
    if (message.kind !== "ack") return;
    acks.push(message.sequence);
    if (message.sequence === 3) allAcked.resolve();
  });
  const faults: MigrationFault[] = [];
  const replay = new Replay({
    createKernels: loadKernels,
    contract,
    channel: destination,
    // the replay only writes to the socket
    socket: stream as unknown as Socket,
    clock: systemClock,
    onFault: (fault) => faults.push(fault),
    corruptPage: false,
  });
  return { replay, faults, acks, allAcked: allAcked.promise, bytes: () => Buffer.concat(written) };
}

/** Makes a frame as the source makes it. */
function frame(sequence: number, body: Uint8Array, changes: Partial<Frame> = {}): Frame {
  kernels.memory.set(body, AT);
  kernels.checksum(address(AT), body.length, address(KERNEL_RESERVED_BYTES));
  const checksum = kernels.memory.slice(KERNEL_RESERVED_BYTES, KERNEL_RESERVED_BYTES + 8);
  return {
    kind: "frame",
    sequence,
    frameKind: "verbatim",
    codec: "none",
    rawLength: body.length,
    checksum,
    body,
    ...changes,
  };
}

function pages(write: (writer: PageFrameWriter) => void): Uint8Array {
  const writer = new PageFrameWriter(kernels);
  writer.begin(address(AT), 65536);
  write(writer);
  const length = writer.finish();
  return kernels.memory.slice(writer.frameAt, writer.frameAt + length);
}

t.test("verbatim frames and pages become QEMU's stream in their order, and are acknowledged", async (t) => {
  const { replay, acks, allAcked, bytes, faults } = setUp();
  replay.take(frame(1, Buffer.from("head")));
  replay.layout(BLOCKS, 2);
  const body = pages((writer) => writer.zeroRun(3, 2));
  replay.take(frame(2, body, { frameKind: "pages" }));
  replay.take(frame(3, Buffer.from("tail")));
  await replay.drained();
  await allAcked;
  const record = (page: number, more: string): string =>
    `${(page * 4096 + (more === "" ? 0x22 : 2)).toString(16).padStart(16, "0")}${more}00`;
  const name = `06${Buffer.from("pc.ram").toString("hex")}`;
  const part = `0200000002${record(3, name)}${record(4, "")}00000000000000107e00000002`;
  t.equal(
    bytes().toString("hex"),
    `${Buffer.from("head").toString("hex")}${part}${Buffer.from("tail").toString("hex")}`,
  );
  t.same(acks, [1, 3], "the frame of pages is acknowledged with the one close after it");
  t.same(faults, []);
});

t.test("a body is read the same from any place in memory", async (t) => {
  const { replay, bytes, faults } = setUp();
  const sent = Array.from({ length: 9 }, (_, offset) => Buffer.from(`piece ${offset}, `.repeat(7 + offset)));
  for (const [offset, content] of sent.entries()) {
    const body = new Uint8Array(content.length + offset).subarray(offset);
    body.set(content);
    replay.take(frame(offset + 1, body));
  }
  await replay.drained();
  t.same(faults, []);
  t.ok(bytes().equals(Buffer.concat(sent)));
});

const lies: readonly (readonly [title: string, tell: (replay: Replay) => void, code: string, message: RegExp])[] = [
  [
    "a gap in the sequence",
    (replay) => replay.take(frame(2, Buffer.from("x"))),
    "peer-invalid",
    /frame 2 after frame 0/,
  ],
  [
    "a frame twice",
    (replay) => {
      replay.take(frame(1, Buffer.from("x")));
      replay.take(frame(1, Buffer.from("x")));
    },
    "peer-invalid",
    /frame 1 after frame 1/,
  ],
  [
    "a wrong checksum",
    (replay) => replay.take(frame(1, Buffer.from("x"), { checksum: new Uint8Array(8) })),
    "checksum-mismatch",
    /Frame 1 was damaged/,
  ],
  [
    "a length that is not the body's",
    (replay) => replay.take(frame(1, Buffer.from("x"), { rawLength: 9 })),
    "peer-invalid",
    /claims to have 9/,
  ],
  [
    "more than was agreed on",
    (replay) => replay.take(frame(1, Buffer.from("x"), { rawLength: 1 << 30 })),
    "peer-invalid",
    /agreed on 65536/,
  ],
  [
    "compression that was not agreed on",
    (replay) => replay.take(frame(1, Buffer.from("x"), { codec: "zstd" })),
    "peer-invalid",
    /although compression was not agreed on/,
  ],
  [
    "pages before the layout",
    (replay) =>
      replay.take(
        frame(
          1,
          pages((w) => w.zeroRun(0, 1)),
          { frameKind: "pages" },
        ),
      ),
    "peer-invalid",
    /before the layout/,
  ],
  [
    "another layout than was agreed on",
    (replay) => replay.layout([{ ...BLOCKS[0]!, byteLength: 4096 }], 2),
    "peer-invalid",
    /pc\.ram has 4096/,
  ],
  [
    "a second layout",
    (replay) => {
      replay.layout(BLOCKS, 2);
      replay.layout(BLOCKS, 2);
    },
    "peer-invalid",
    /second layout/,
  ],
  [
    "a page outside of memory",
    (replay) => {
      replay.layout(BLOCKS, 2);
      replay.take(
        frame(
          1,
          pages((w) => w.zeroRun(64, 1)),
          { frameKind: "pages" },
        ),
      );
    },
    "peer-invalid",
    /page 64 of 64/,
  ],
];
for (const [title, tell, code, message] of lies)
  t.test(`${title} is refused by name`, async (t) => {
    const { replay } = setUp();
    t.throws(() => tell(replay), { code, message });
  });

t.test("a frame that waits for QEMU is kept although the link uses its memory again", async (t) => {
  const { replay, faults, bytes } = setUp();
  const memory = Buffer.alloc(1000);
  const sent: Buffer[] = [];
  // QEMU takes nothing in the meantime, so there is room for the first few frames only
  for (let sequence = 1; sequence <= 12; sequence++) {
    memory.fill(sequence);
    sent.push(Buffer.from(memory));
    replay.take({ ...frame(sequence, memory), body: memory, isLent: true });
    memory.fill(0xff);
  }
  t.equal(replay.isHeldBack, true);
  await replay.drained();
  await new Promise((resolve) => setImmediate(resolve));
  t.ok(bytes().equals(Buffer.concat(sent)));
  t.same(faults, []);
});
