/** Tests that the destination's decompressor refuses every frame that is not whole or does not fit. */
import t from "tap";
import zstd from "zstd-napi/binding.js";
import { decompressInto } from "../../../shared/codec/zstd.ts";

t.test("a decompressor refuses every damaged or oversized frame with peer-invalid", async (t) => {
  const original = Uint8Array.from({ length: 65536 }, (_, at) => (at & 8 ? (at >> 4) * 31 : 0));
  const room = new Uint8Array(70000);
  const frame = room.slice(0, new zstd.CCtx().compress(room, original, 3));
  const refuses = (destination: Uint8Array, source: Uint8Array, what: string) =>
    t.throws(() => decompressInto(destination, source), { code: "peer-invalid" }, what);
  refuses(new Uint8Array(65535), frame, "more than there is room for");
  refuses(new Uint8Array(0), frame, "no room");
  refuses(new Uint8Array(65536), new Uint8Array([1, 2, 3, 4, 5]), "no zstd");
  for (let length = 1; length < frame.length; length += 7)
    refuses(new Uint8Array(65536), frame.slice(0, length), `cut at ${length}`);
  const guarded = new Uint8Array(65536 + 64).fill(0xee);
  for (let at = 0; at < frame.length; at += 3) {
    const damaged = frame.slice();
    damaged[at] = (damaged[at] ?? 0) ^ 0x55;
    try {
      t.ok(decompressInto(guarded.subarray(0, 65536), damaged) <= 65536);
    } catch (thrown) {
      t.equal((thrown as { code: string }).code, "peer-invalid");
    }
  }
  t.ok(
    guarded.subarray(65536).every((byte) => byte === 0xee),
    "nothing is written beyond the room",
  );
});
