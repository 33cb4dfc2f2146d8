/**
 * Tests the end of a migration that will not happen: its source is told first, and then nothing of it is left, unless
 * somebody has started the guest.
 */
import { existsSync, writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import { keeperPlaces } from "../../../../agent-destination/migration/destination-context.ts";
import { discard } from "../../../../agent-destination/migration/phases/discard.ts";
import { incomingPath } from "../../../../agent-destination/migration/phases/stage.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { bounded } from "../../../support/bounded.ts";
import {
  type Came,
  destinationPhase,
  GRANT,
  refusedGrant,
  type StreamOptions,
} from "../../../support/destination-cx.ts";

const FAULT = new MigrationFault("peer-lost", "The link was down for too long", { advice: "Mend the link" });

/** Lets a migration be discarded. @param refused true where the source may have sent a grant */
async function discarding(t: Test, refused: boolean, came: Came & { readonly stream?: StreamOptions } = {}) {
  const phase = await destinationPhase(t, came);
  await phase.write(refused ? "refused" : "waiting");
  const link = phase.stream(came.stream);
  const { guest, cx } = phase;
  const left = [incomingPath(cx), ...Object.values(keeperPlaces(cx))];
  for (const path of left) writeFileSync(path, "");
  const state = { kind: "discarding", fault: FAULT, undo: { guest, receiver: link.receiver }, refused } as const;
  return { ...phase, link, left, discarded: () => bounded(discard(state, cx), 20_000, "the end") };
}

t.test("the source is told before QEMU ends, since its guest may stand still until then", async (t) => {
  const { discarded, steps, qemu } = await discarding(t, false);
  t.match(await discarded(), { kind: "discarded", fault: FAULT });
  t.same(steps, ["source: failure", "quit"]);
  t.notOk(qemu.isAlive);
});

t.test("a caller that waits for the answer to its offer is told why there is none", async (t) => {
  const { discarded, cx } = await discarding(t, false);
  await discarded();
  await t.rejects(cx.answer.promise, { code: "peer-lost", message: FAULT.message, advice: "Mend the link" });
});

t.test("where the source may have sent a grant, it is told that this very grant is refused", async (t) => {
  for (const refused of [false, true]) {
    const { discarded, link } = await discarding(t, refused);
    await discarded();
    t.match(link.said, [{ kind: "failure", code: "peer-lost", message: FAULT.message }]);
    t.equal(refusedGrant(link.said[0]), refused ? GRANT.token : "");
  }
});

t.test("nothing was granted: no record is left, and no file", async (t) => {
  const { discarded, record, left } = await discarding(t, false);
  await discarded();
  t.equal(await record(), undefined);
  t.same(left.filter(existsSync), []);
});

t.test("the record of a refusal stays for a source that asks late, and says that no copy is left", async (t) => {
  const { discarded, record, left } = await discarding(t, true);
  await discarded();
  t.match(await record(), { kind: "refused", heard: true });
  t.same(left.filter(existsSync), []);
});

t.test("a disk that does not take the last record keeps nothing of the migration alive", async (t) => {
  const { discarded, failWrites, qemu } = await discarding(t, true);
  failWrites(true);
  t.match(await discarded(), { kind: "discarded" });
  t.notOk(qemu.isAlive);
});

t.test(
  "a guest that somebody has started is never ended, and the operator is told that there may be two",
  async (t) => {
    for (const postcopy of [false, true]) {
      const { discarded, qemu, guest, record } = await discarding(t, true, { status: "running", stream: { postcopy } });
      t.match(await discarded(), { kind: "doubled", fault: { code: "two-copies" }, isWhole: !postcopy });
      t.ok(qemu.isAlive);
      t.notOk(qemu.said.includes("quit"));
      t.notOk(guest.qmp.isOpen, "its monitor is left to others");
      t.notOk((await record())?.heard, "the record of the refusal stays as it is");
    }
  },
);

t.test("a migration for which no QEMU was started leaves no record either", async (t) => {
  const { cx, record, write } = await destinationPhase(t);
  await write("waiting");
  t.match(await discard({ kind: "discarding", fault: FAULT, undo: {}, refused: false }, cx), { kind: "discarded" });
  t.equal(await record(), undefined);
});
