/** Tests how a granted guest becomes this host's: by a record, before anything is said to its QEMU. */
import t, { type Test } from "tap";
import { own } from "../../../../agent-destination/migration/phases/own.ts";
import { destinationPhase, GRANT, POSTCOPY } from "../../../support/destination-cx.ts";
import { FAKE_START_US, FakeClock } from "../../../support/fake-clock.ts";

/** Lets a guest be owned whose grant has just come. */
async function owning(t: Test, more: { readonly isMarked?: boolean; readonly paused?: boolean } = {}) {
  const phase = await destinationPhase(t, { clock: new FakeClock() });
  await phase.write("waiting");
  const { guest, cx } = phase;
  const grant = { ...GRANT, paused: more.paused === true };
  const state = { kind: "owning", guest, grant, isMarked: more.isMarked === true } as const;
  return { ...phase, state, owned: () => own(state, cx) };
}

t.test("the journal says that the guest may run here, and QEMU is told nothing yet", async (t) => {
  const { owned, steps, record, guest } = await owning(t);
  t.match(await owned(), { kind: "starting", guest, grant: GRANT, grantedAtUs: FAKE_START_US });
  t.same(steps, ["journal: running"]);
  t.match(await record(), { kind: "running", qemu: guest.process, grant: GRANT });
});

t.test("the record of a guest that was granted paused says so, since no agent may start that guest", async (t) => {
  const { owned, record } = await owning(t, { paused: true });
  await owned();
  t.match(await record(), { kind: "running", grant: { paused: true } });
});

t.test("the record of a guest in post-copy has what it takes to resume post-copy", async (t) => {
  const { state, cx, record } = await owning(t);
  t.match(await own({ ...state, postcopy: POSTCOPY }, cx), { kind: "starting", postcopy: POSTCOPY });
  t.match(await record(), { kind: "running", postcopy: POSTCOPY });
});

t.test("a guest whose QEMU has ended is not owned: that end is still a refusal", async (t) => {
  const { owned, qemu, record } = await owning(t);
  await qemu.end();
  await t.rejects(owned(), { code: "qemu-failed", message: /The destination's QEMU ended/ });
  t.match(await record(), { kind: "waiting" });
});

t.test("a grant that the disk does not take is not owned", async (t) => {
  const { owned, failWrites, record } = await owning(t);
  failWrites(true);
  await t.rejects(owned(), { code: "state-directory" });
  t.match(await record(), { kind: "waiting" });
});

t.test("the mark of an earlier refusal is removed after the record, so that one of them always stands", async (t) => {
  const { owned, steps, qemu } = await owning(t, { isMarked: true });
  qemu.objects.add("ferry-refused");
  await owned();
  t.same(steps, ["journal: running", "object-del"]);
  t.equal(qemu.objects.size, 0);
});
