/** Tests the answers to a source that compares the memory of a loaded guest (`--verify`). */
import { createHash } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import { answerDigests } from "../../../agent-destination/migration/guest-digests.ts";
import { PAGE_SIZE } from "../../../shared/units.ts";
import { destinationPhase } from "../../support/destination-cx.ts";

const STRETCH = { start: 1 << 20, byteLength: 2 * PAGE_SIZE };
const MEMORY = Buffer.concat([Buffer.alloc(PAGE_SIZE, 1), Buffer.alloc(PAGE_SIZE, 2)]);

/** Asks for digests of a guest whose QEMU writes these bytes into the file that it is given. */
async function answered(t: Test, bytes: Buffer) {
  const phase = await destinationPhase(t);
  const asked: Record<string, unknown>[] = [];
  phase.qemu.whim = ({ execute, arguments: given = {} }) => {
    if (execute !== "pmemsave") return undefined;
    asked.push(given);
    writeFileSync(String(given.filename), bytes);
    return undefined;
  };
  const { receiver, said } = phase.stream();
  await answerDigests(phase.guest, receiver, phase.cx, STRETCH);
  return { asked, said, receiver };
}

t.test("QEMU saves the stretch to a file, which is digested page by page and removed", async (t) => {
  const { asked, said, receiver } = await answered(t, MEMORY);
  t.match(asked, [{ val: STRETCH.start, size: STRETCH.byteLength, filename: /\.verify-destination$/ }]);
  t.notOk(existsSync(String(asked[0]?.filename)));
  const digestOf = (page: number): Buffer =>
    createHash("sha256")
      .update(MEMORY.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE))
      .digest()
      .subarray(0, 16);
  const digests = new Uint8Array(Buffer.concat([digestOf(0), digestOf(1)]));
  t.same(said, [{ kind: "pageDigests", ...STRETCH, digests, last: false }]);
  t.notOk(receiver.signal.aborted);
});

t.test("memory that QEMU does not save as a whole is a fault of the stream, and no digest is sent", async (t) => {
  const { said, receiver } = await answered(t, MEMORY.subarray(1));
  t.same(said, []);
  t.match(receiver.signal.reason, { code: "qemu-failed" });
});
