/** Tests `RetainedFrames`: frames that were sent and not acknowledged keep their content, in bounded memory. */
import t from "tap";
import { RetainedFrames } from "../../../../shared/link/resume/retained-frames.ts";
import { FRAME_HEAD_BYTES } from "../../../../shared/link/wire/frame-wire.ts";
import type { Frame } from "../../../../shared/protocol/stream-messages.ts";

const frame = (body: Uint8Array): Frame => ({
  kind: "frame",
  sequence: 1,
  frameKind: "pages",
  codec: "none",
  rawLength: body.length,
  checksum: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
  body,
});

t.test(
  "a kept frame has its content, its checksum and room for its head, whatever becomes of the original",
  async (t) => {
    const frames = new RetainedFrames(1 << 20);
    for (let shift = 0; shift < 8; shift++) {
      const memory = new Uint8Array(64).fill(7);
      const original = frame(memory.subarray(shift, shift + 50));
      const kept = frames.keep(original);
      memory.fill(0);
      original.checksum.fill(0);
      t.same([...kept.body], Array(50).fill(7));
      t.same([...kept.checksum], [1, 2, 3, 4, 5, 6, 7, 8]);
      t.equal(kept.body.byteOffset % 8, shift, "the body is aligned as it was, so that it is copied by words");
      t.ok(kept.headRoom === FRAME_HEAD_BYTES && kept.body.byteOffset >= FRAME_HEAD_BYTES);
    }
  },
);

t.test("a frame that is dropped makes room, and its memory is used again", async (t) => {
  const frames = new RetainedFrames(100);
  const first = frames.keep(frame(new Uint8Array(60)));
  t.throws(() => frames.keep(frame(new Uint8Array(60))), { code: "internal" });
  frames.dropOldest();
  const second = frames.keep(frame(new Uint8Array(70)));
  t.equal(second.body.buffer, first.body.buffer);
  frames.dropOldest();
  frames.dropOldest();
});

t.test("frames of all sizes keep their content, in a few chunks that are used again", async (t) => {
  const frames = new RetainedFrames(8 << 20);
  const kept: { readonly body: Uint8Array; readonly fill: number }[] = [];
  const chunks = new Set<ArrayBufferLike>();
  for (let round = 0; round < 200; round++) {
    // frames have some hundred bytes, some hundred kilobytes, or now and then more than a chunk holds
    const length = round % 50 === 49 ? 1_500_000 : round % 3 === 0 ? 300 : 60_000 + ((round * 7919) % 200_000);
    const { body } = frames.keep(frame(new Uint8Array(length).fill(round)));
    chunks.add(body.buffer);
    kept.push({ body, fill: round % 256 });
    while (kept.length > 12) {
      const oldest = kept.shift();
      t.ok(oldest?.body.every((byte) => byte === oldest.fill));
      frames.dropOldest();
    }
  }
  t.ok(chunks.size <= 12, `${chunks.size} chunks, four of them for long frames`);
});
