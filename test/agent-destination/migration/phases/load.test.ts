/**
 * Tests how QEMU's loading of the guest is seen to end, in precopy and in post-copy, and what is tried before the
 * source hears that the guest is here.
 */
import t, { type Test } from "tap";
import { load } from "../../../../agent-destination/migration/phases/load.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { bounded } from "../../../support/bounded.ts";
import { type Came, destinationPhase, POSTCOPY } from "../../../support/destination-cx.ts";
import { FakeClock } from "../../../support/fake-clock.ts";

/** Lets QEMU load a guest whose last byte has come. The guest has one disk, so that QEMU can try its image. */
async function loading(t: Test, came: Came & { readonly postcopy?: boolean } = {}) {
  const phase = await destinationPhase(t, { migration: "active", ...came });
  await phase.write("waiting");
  phase.qemu.images.push("disk0");
  const link = phase.stream({ postcopy: came.postcopy === true });
  const { guest, cx } = phase;
  const { receiver } = link;
  const loaded = () => bounded(load({ kind: "loading", guest, receiver }, cx), 30_000, "the loading");
  return { ...phase, link, receiver, loaded };
}

t.test("a guest is loaded when QEMU says so, and its images have been tried since", async (t) => {
  const { loaded, qemu, guest, receiver, steps, link } = await loading(t);
  const done = loaded();
  await guest.qmp.execute("query-status");
  t.same(steps, [], "nothing is tried while QEMU loads");
  qemu.migrationIs("completed");
  t.match(await done, { kind: "loaded", guest, receiver, isStarted: false });
  t.same(steps, ["blockdev-set-active", "blockdev-set-active"], "they are activated, and deactivated again");
  t.equal(link.link.patienceMs, Number.POSITIVE_INFINITY, "a copy that may be whole does not wait for the link");
});

t.test("a QEMU that was faster than the agent is believed without an event", async (t) => {
  for (const status of ["paused", "prelaunch"]) {
    const { loaded } = await loading(t, { migration: "completed", status });
    t.match(await loaded(), { kind: "loaded", isStarted: false }, status);
  }
});

t.test("a QEMU that could not load the guest has failed, in its own words", async (t) => {
  for (const isLate of [false, true]) {
    const { loaded, qemu, guest, steps } = await loading(t, { migration: isLate ? "active" : "failed" });
    qemu.errorDescription = "error while loading state for instance 0x0 of device 'cpu_common'";
    const done = loaded();
    done.catch(() => undefined);
    await guest.qmp.execute("query-status");
    if (isLate) qemu.migrationIs("failed");
    const message = `The destination's QEMU could not load the guest: ${qemu.errorDescription}`;
    await t.rejects(done, { code: "qemu-failed", message });
    t.same(steps, []);
  }
});

t.test("a guest that is neither paused nor running after the loading is not reported as loaded", async (t) => {
  const { loaded } = await loading(t, { migration: "completed", status: "inmigrate" });
  const message = "The destination's QEMU is inmigrate after loading, not paused";
  await t.rejects(loaded(), { code: "qemu-failed", message });
});

t.test("a guest that somebody has started while it was loaded is not stopped to try its images", async (t) => {
  for (const postcopy of [false, true]) {
    const { loaded, steps } = await loading(t, { migration: "completed", status: "running", postcopy });
    t.match(await loaded(), { kind: "loaded", isStarted: true });
    t.notOk(steps.includes("blockdev-set-active"));
  }
});

t.test("images that QEMU cannot use are found while the source can still take the guest back", async (t) => {
  const { loaded, qemu, record, steps } = await loading(t, { migration: "completed" });
  qemu.whim = ({ execute, arguments: given }) =>
    execute === "blockdev-set-active" && given?.active === true ? 'Failed to get "write" lock' : undefined;
  await t.rejects(loaded(), { code: "qemu-failed", message: /cannot use the guest's images: .*"write" lock/ });
  t.same(steps, ["blockdev-set-active", "blockdev-set-active"], "the locks that QEMU has got are released");
  t.match(await record(), { kind: "waiting" });
});

t.test("a stream that fails ends the wait, whether QEMU still takes bytes or loads them", async (t) => {
  for (const takesAll of [true, false]) {
    const { loaded, receiver } = await loading(t, { migration: takesAll ? "active" : "completed" });
    if (!takesAll) receiver.replay.drained = () => new Promise(() => undefined);
    const done = loaded();
    done.catch(() => undefined);
    receiver.fail(new MigrationFault("checksum-mismatch", "A frame was damaged"));
    await t.rejects(done, { code: "checksum-mismatch" });
  }
});

t.test("a QEMU that does not take the guest's last bytes within a minute has failed", async (t) => {
  const clock = new FakeClock();
  const { loaded, receiver } = await loading(t, { clock });
  receiver.replay.drained = () => new Promise(() => undefined);
  const message = "The destination's QEMU did not take the guest's last bytes in 60000 ms";
  const failed = t.rejects(loaded(), { code: "timeout", message });
  await clock.untilWaitedFor();
  await clock.advance(60_000);
  await failed;
});

t.test("in post-copy the guest is loaded when QEMU is paused, and the record has what resumes post-copy", async (t) => {
  const { loaded, guest, receiver, steps, record, qemu } = await loading(t, { postcopy: true, status: "inmigrate" });
  let looks = 0;
  qemu.whim = ({ execute }) => {
    if (execute === "query-status" && ++looks === 3) qemu.state.status = "paused";
    return undefined;
  };
  t.match(await loaded(), { kind: "loaded", guest, receiver, postcopy: POSTCOPY, isStarted: false });
  t.same(steps, ["blockdev-set-active", "blockdev-set-active", "journal: waiting"]);
  t.match(await record(), { kind: "waiting", postcopy: POSTCOPY });
});

t.test("a post-copy whose package QEMU cannot load has failed, in its own words", async (t) => {
  const { loaded, qemu } = await loading(t, { postcopy: true, status: "inmigrate", migration: "failed" });
  qemu.errorDescription = "load of migration failed: Invalid argument";
  await t.rejects(loaded(), {
    code: "qemu-failed",
    message: /could not load the guest: load of migration failed: Invalid argument/,
  });
});

t.test("a QEMU that does not come to the end of the package within a minute has failed", async (t) => {
  const clock = new FakeClock();
  const { loaded, qemu } = await loading(t, { postcopy: true, status: "inmigrate", clock });
  let looks = 0;
  qemu.whim = ({ execute }) => {
    if (execute === "query-status" && ++looks === 2) clock.jump(60_001);
    return undefined;
  };
  const message = /has not loaded the package in 60000 ms: it is inmigrate, its migration active$/;
  const done = loaded();
  await clock.walkUntil(done);
  await t.rejects(done, { code: "timeout", message });
});

t.test("a post-copy whose stream fails before the package is loaded ends with the fault of the stream", async (t) => {
  const { loaded, receiver } = await loading(t, { postcopy: true, status: "inmigrate" });
  receiver.fail(new MigrationFault("checksum-mismatch", "A frame was damaged"));
  await t.rejects(loaded(), { code: "checksum-mismatch" });
});
