/** Tests how an agent sees that somebody else has started a guest here, and what it writes down about it. */
import t from "tap";
import { hasStarted, noteStarted, onceStarted } from "../../../agent-destination/migration/started-by-others.ts";
import { bounded } from "../../support/bounded.ts";
import { destinationPhase, POSTCOPY } from "../../support/destination-cx.ts";

t.test("a guest has run if QEMU says so, or is in a state that only such a guest gets into", async (t) => {
  const { guest, qemu } = await destinationPhase(t);
  for (const [status, expected] of [
    ["running", true],
    ["io-error", true],
    ["guest-panicked", true],
    ["postmigrate", true],
    ["finish-migrate", true],
    ["paused", false],
    ["prelaunch", false],
    ["inmigrate", false],
  ] as const) {
    qemu.state.status = status;
    t.equal(await hasStarted(guest), expected, status);
  }
});

t.test("a QEMU that does not tell, or cannot be reached, is not seen to run", async (t) => {
  const { guest, qemu } = await destinationPhase(t, { status: "running" });
  qemu.whim = ({ execute }) => (execute === "query-status" ? "silence" : undefined);
  t.equal(await bounded(hasStarted(guest), 8000, "the answer"), false, "it is asked for two seconds");
  guest.monitor = async () => Promise.reject(new Error("another process answers"));
  t.equal(await hasStarted(guest), false);
});

t.test("a QEMU that has ended is not seen to run", async (t) => {
  const { guest, qemu } = await destinationPhase(t, { status: "running" });
  await qemu.end();
  t.equal(await hasStarted(guest), false);
});

t.test("nobody is told of a start once it does not matter any more", async (t) => {
  const { guest, qemu } = await destinationPhase(t);
  const over = new AbortController();
  const told: string[] = [];
  void onceStarted(guest, over.signal).then(() => told.push("over"));
  over.abort();
  const started = onceStarted(guest, new AbortController().signal);
  qemu.become("running");
  await started;
  t.same(told, []);
});

t.test("a guest without missing pages has arrived without a grant, and its monitor is left to others", async (t) => {
  const { guest, cx, record, told } = await destinationPhase(t, { status: "running" });
  await noteStarted(guest, undefined, cx);
  t.match(await record(), { kind: "arrived", ungranted: true });
  t.equal(told.running.length, 1);
  t.notOk(guest.qmp.isOpen);
});

t.test("a guest with missing pages keeps its monitor, and the record has what brings the pages", async (t) => {
  const { guest, cx, record } = await destinationPhase(t, { status: "running" });
  await noteStarted(guest, POSTCOPY, cx);
  t.match(await record(), { kind: "running", ungranted: true, postcopy: POSTCOPY });
  t.ok(guest.qmp.isOpen);
});

t.test("a disk that does not take the record changes nothing for a guest that runs", async (t) => {
  const { guest, cx, failWrites, told, record } = await destinationPhase(t, { status: "running" });
  failWrites(true);
  await noteStarted(guest, undefined, cx);
  t.equal(told.running.length, 1);
  t.equal(await record(), undefined);
});
