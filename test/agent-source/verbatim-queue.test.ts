import t from "tap";
import { VerbatimQueue } from "../../agent-source/verbatim-queue.ts";

t.test("pieces come out in order, in whatever sizes they are asked for", async (t) => {
  const queue = new VerbatimQueue();
  queue.push(Uint8Array.of(1, 2, 3), false);
  queue.push(Uint8Array.of(4), false);
  queue.push(Uint8Array.of(5, 6, 7, 8), true);
  t.ok(queue.afterPages);
  const memory = new Uint8Array(16);
  t.equal(queue.take(memory, 0, 2), 2);
  t.equal(queue.take(memory, 2, 4), 4);
  t.equal(queue.take(memory, 6, 100), 2);
  t.same([...memory.subarray(0, 8)], [1, 2, 3, 4, 5, 6, 7, 8]);
  t.ok(queue.isEmpty);
});

t.test("a piece is copied: its memory may be used again at once", async (t) => {
  const queue = new VerbatimQueue();
  const piece = Uint8Array.of(9);
  queue.push(piece, false);
  piece[0] = 1;
  const memory = new Uint8Array(1);
  queue.take(memory, 0, 1);
  t.equal(memory[0], 9);
});

t.test("more than it may hold is refused", async (t) => {
  const queue = new VerbatimQueue();
  queue.push(new Uint8Array(64 << 20), true);
  t.throws(() => queue.push(Uint8Array.of(1), true), { code: "not-supported" });
});
