/** Tests `VerbatimQueue`: bytes come out as they went in, in their order. */
import t from "tap";
import { VerbatimQueue } from "../../../agent-source/send/verbatim-queue.ts";

t.test("pieces come out in order, in whatever sizes they are asked for", async (t) => {
  const queue = new VerbatimQueue();
  queue.push(Uint8Array.of(1, 2, 3), "head");
  queue.push(Uint8Array.of(4), "head");
  queue.push(Uint8Array.of(5, 6, 7, 8), "head");
  t.equal(queue.kind, "head");
  const memory = new Uint8Array(16);
  t.equal(queue.take(memory, 0, 2), 2);
  t.equal(queue.take(memory, 2, 4), 4);
  t.equal(queue.take(memory, 6, 100), 2);
  t.same([...memory.subarray(0, 8)], [1, 2, 3, 4, 5, 6, 7, 8]);
  t.ok(queue.isEmpty);
});

t.test("a piece is copied, so its memory may be used again at once", async (t) => {
  const queue = new VerbatimQueue();
  const piece = Uint8Array.of(9);
  queue.push(piece, "head");
  piece[0] = 1;
  const memory = new Uint8Array(1);
  queue.take(memory, 0, 1);
  t.equal(memory[0], 9);
});

t.test("a piece is refused when the queue would hold more than it may", async (t) => {
  const queue = new VerbatimQueue();
  queue.push(new Uint8Array(64 << 20), "device");
  t.throws(() => queue.push(Uint8Array.of(1), "device"), { code: "not-supported" });
});

t.test("bytes of two kinds never share a frame, nor do two pieces of discards", async (t) => {
  const queue = new VerbatimQueue();
  queue.push(Uint8Array.of(1), "discards");
  queue.push(Uint8Array.of(2), "discards");
  queue.push(Uint8Array.of(3), "package");
  queue.push(Uint8Array.of(4), "package");
  queue.push(Uint8Array.of(5), "device");
  const memory = new Uint8Array(16);
  const frames: string[] = [];
  while (!queue.isEmpty) frames.push(`${queue.kind} ${queue.take(memory, 0, 16)}`);
  t.same(frames, ["discards 1", "discards 1", "package 2", "device 1"]);
});
