/** Tests the record `released`: what it says, and that a full disk does not lose it. */
import t from "tap";
import { noteReleased } from "../../../agent-source/migration/note-released.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { FAKE_START_US, FakeClock } from "../../support/fake-clock.ts";
import { sourcePhase } from "../../support/source-cx.ts";

t.test("the record of a move says when it ended, and gives no reason", async (t) => {
  const { cx, record, qemu } = await sourcePhase(t, "postmigrate", { clock: new FakeClock() });
  await noteReleased(cx, { paused: false });
  const found = await record();
  t.match(found, { kind: "released", guest: "web", endedAtMs: FAKE_START_US / 1000, qemu: qemu.process });
  t.equal(found?.reason, undefined);
});

t.test("the record of a guest that has lost its pages says why, for an operator who asks later", async (t) => {
  const { cx, record } = await sourcePhase(t, "gone");
  await noteReleased(cx, { paused: false }, new MigrationFault("pages-lost", "QEMU has ended"));
  t.match(await record(), { kind: "released", reason: { code: "pages-lost", message: "QEMU has ended" } });
});

t.test("a disk that is full delays the record and nothing else", async (t) => {
  const clock = new FakeClock();
  const { cx, record, failWrites, written } = await sourcePhase(t, "postmigrate", { clock });
  failWrites(true);
  await noteReleased(cx, { paused: false });
  t.equal(await record(), undefined);
  failWrites(false);
  await clock.advance(1000);
  for (let turn = 0; turn < 100 && written.length === 0; turn++) await cx.journal.read(cx.id);
  t.match(await record(), { kind: "released" });
});
