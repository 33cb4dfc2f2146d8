/** Tests what the states of QEMU's migrations mean, also the states that only later QEMUs have. */
import t from "tap";
import { isSettled, migrationPhase, servesPostcopy } from "../../../../shared/qemu/qmp/migration-status.ts";

t.test("a source QEMU serves post-copy from its package to its last page", async (t) => {
  for (const status of ["postcopy-device", "postcopy-active", "completed"]) t.ok(servesPostcopy(status), status);
  for (const status of [undefined, "setup", "active", "device", "cancelling", "cancelled", "failing", "failed"])
    t.notOk(servesPostcopy(status), String(status));
  t.notOk(servesPostcopy("postcopy-paused"), "such a QEMU has lost its stream");
});

t.test("a new migration may begin only where no migration is under way", async (t) => {
  for (const status of [undefined, "none", "completed", "failed", "cancelled"]) t.ok(isSettled(status), String(status));
  for (const status of ["cancelling", "failing", "postcopy-device", "wait-unplug"]) t.notOk(isSettled(status), status);
});

t.test("a status that is not known belongs to a migration under way", async (t) => {
  for (const status of ["later", "constructor", "__proto__", ""]) {
    t.equal(migrationPhase(status), "unknown", status);
    t.notOk(isSettled(status), status);
    t.ok(servesPostcopy(status), status);
  }
});
