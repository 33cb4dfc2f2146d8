/** Tests `GlobalState`: the run state in which the guest was stopped is found in QEMU's device state. */
import fc from "fast-check";
import t from "tap";
import { GlobalState } from "../../../../shared/qemu/stream/global-state.ts";

/** Makes the section as QEMU 8.1 and 10.0 write it (test/vectors). */
function section(runState: string): Buffer {
  const head = Buffer.from("04000000260b676c6f62616c73746174650000000000000001", "hex");
  const size = Buffer.alloc(4);
  size.writeUInt32BE(runState.length + 1);
  return Buffer.concat([head, size, Buffer.from(runState), Buffer.alloc(100 - runState.length)]);
}

const found = (pieces: readonly Uint8Array[]): string | undefined => {
  const state = new GlobalState();
  for (const piece of pieces) state.push(piece);
  return state.runState;
};

t.test("the run state is read wherever the pieces are cut", async (t) => {
  const bytes = Buffer.concat([Buffer.from("timer"), section("paused"), Buffer.from("cpu_common")]);
  for (let at = 0; at <= bytes.length; at++) t.equal(found([bytes.subarray(0, at), bytes.subarray(at)]), "paused");
  t.equal(found([...bytes].map((byte) => Uint8Array.of(byte))), "paused");
});

t.test("the first section counts, and the machine's description is no section", async (t) => {
  t.equal(found([section("running"), section("paused")]), "running");
  t.equal(found([Buffer.from('{"name": "globalstate", "instance_id": 0}')]), undefined);
  t.equal(found([section("internal-error").subarray(0, 40)]), undefined, "not all of the section has come");
});

t.test("bytes that look like the beginning of the section do not hide it", async () => {
  const likeHead = fc.constantFrom(
    "0b",
    "0b676c",
    "0b0b676c6f62616c7374617465",
    "0b676c6f62616c737461746500",
    "04",
    "0000",
  );
  fc.assert(
    fc.property(fc.array(likeHead, { maxLength: 6 }), fc.constantFrom("running", "prelaunch"), (before, runState) => {
      return found([Buffer.from(before.join(""), "hex"), section(runState)]) === runState;
    }),
  );
});

t.test("text without an end is bounded", async (t) => {
  const endless = Buffer.concat([section("x").subarray(0, 28), Buffer.alloc(1000, 0x41)]);
  t.equal(found([endless])?.length, 32);
});
