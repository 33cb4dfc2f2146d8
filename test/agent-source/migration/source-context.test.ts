/** Tests a source's records: what the next agent finds, and what is left out where it no longer counts. */
import t from "tap";
import { keptRecord, sourceRecord } from "../../../agent-source/migration/source-context.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { decodeSourceRecord } from "../../../shared/protocol/record-decoding.ts";
import { FAKE_START_US, FakeClock } from "../../support/fake-clock.ts";
import { FAKE_SETTINGS as settings } from "../../support/fake-guest-facts.ts";
import { RESUMED_POSTCOPY as postcopy } from "../../support/fake-resumed.ts";
import { sourcePhase } from "../../support/source-cx.ts";

t.test("every record names the guest, the destination, this QEMU's process and the grant", async (t) => {
  const { cx, qemu, destination } = await sourcePhase(t, "running", { clock: new FakeClock() });
  const common = {
    ...{ guest: "web", destination: destination.address, sequence: 7, startedAtMs: FAKE_START_US / 1000 },
    qemu: qemu.process,
    grant: { token: "aa".repeat(16), epoch: 1, paused: true },
  };
  for (const kind of ["plan", "granted", "released", "kept"] as const) {
    const record = sourceRecord(cx, kind, { paused: true });
    t.match(record, { kind, ...common });
    t.match(decodeSourceRecord(JSON.parse(JSON.stringify(record))), { kind, ...common }, "the next agent can read it");
  }
});

t.test("a record of a migration under way has what its undoing needs; one that has ended has the time", async (t) => {
  const { cx } = await sourcePhase(t, "running", { clock: new FakeClock() });
  const kept = { settings, postcopy, paused: false, retiring: true } as const;
  for (const kind of ["plan", "granted"] as const) {
    t.match(sourceRecord(cx, kind, kept), { settings, postcopy, retiring: true }, kind);
    t.notOk("endedAtMs" in sourceRecord(cx, kind, kept));
  }
  const released = sourceRecord(cx, "released", kept);
  t.match(released, { postcopy, endedAtMs: FAKE_START_US / 1000 }, "how the QEMU that is left was used");
  t.notOk("settings" in released || "retiring" in released);
  const stays = sourceRecord(cx, "kept", kept);
  t.notOk("settings" in stays || "postcopy" in stays);
});

t.test("the mark of a withdrawn grant is in each later `granted`, and in no other record", async (t) => {
  const { cx } = await sourcePhase(t, "running");
  t.notOk("withdrawn" in sourceRecord(cx, "granted"));
  cx.doubt.isWithdrawn = true;
  t.match(sourceRecord(cx, "granted"), { withdrawn: true });
  t.notOk("withdrawn" in sourceRecord(cx, "plan"));
});

t.test("a guest that stays here has the reason, and the mark of a destination that has not heard it", async (t) => {
  const { cx } = await sourcePhase(t, "running");
  const fault = new MigrationFault("peer-lost", "The link was down");
  const reason = { code: "peer-lost", message: "The link was down" };
  t.match(keptRecord(cx, fault, true), { kind: "kept", reason, untold: true });
  t.notOk("untold" in keptRecord(cx, fault, false));
});
