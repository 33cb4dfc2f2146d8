/** Tests `GuestProcess`: in which states the destination's QEMU is started, and what its answers prove. */
import { join } from "node:path";
import t, { type Test } from "tap";
import { GuestProcess } from "../../../agent-destination/guest/guest-process.ts";
import type { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { bounded, eventually } from "../../support/bounded.ts";
import { FakeQemu } from "../../support/fake-qemu.ts";
import { folder } from "../../support/link-fixtures.ts";

const LOCKED = 'Failed to get "write" lock';

async function adopted(t: Test, status: string) {
  const qemu = await FakeQemu.start(t, { status });
  const runtimeDirectory = folder(t);
  const keeper = { path: join(runtimeDirectory, "m.monitor"), second: join(runtimeDirectory, "m.monitor-2") };
  const own = { directory: runtimeDirectory, command: ["qemu"] as [string], digest: "" };
  const definition = { name: "web", qmp: qemu.path, ...own };
  const adopt = () => {
    const options = { timeoutMs: 20_000, keeper, missesPages: false };
    return GuestProcess.adopt(definition, qemu.process, { ...options, signal: new AbortController().signal });
  };
  const guest = await adopt();
  if (guest === undefined) throw new Error("it has ended");
  t.teardown(() => guest.letGo());
  return { qemu, guest, adopt };
}

t.test("a guest that came here is started from the states in which it waits, and from no other", async (t) => {
  const { qemu, guest } = await adopted(t, "paused");
  for (const status of ["postmigrate", "inmigrate", "finish-migrate"]) {
    qemu.state.status = status;
    await t.rejects(guest.cont(guest.qmp), {
      code: "qemu-failed",
      message: new RegExp(`is ${status}, so the agent does not start the guest`),
    });
  }
  // only a guest that has run gets into these states, so somebody else has started it already
  for (const status of ["io-error", "shutdown", "internal-error"]) {
    qemu.state.status = status;
    t.same(await guest.cont(guest.qmp), { refusal: undefined }, status);
  }
  t.same(qemu.said, []);
  for (const status of ["paused", "prelaunch"]) {
    qemu.state.status = status;
    t.same(await guest.cont(guest.qmp), { refusal: undefined }, status);
  }
  t.same(qemu.said, ["cont", "cont"]);
  t.same(await guest.cont(guest.qmp), { refusal: undefined });
  t.same(qemu.said, ["cont", "cont"], "cont is not said to a guest that runs");
});

t.test("QEMU's own word that it refuses cont is a proof while the guest stands as before", async (t) => {
  const { qemu, guest } = await adopted(t, "paused");
  qemu.whim = ({ execute }) => (execute === "cont" ? LOCKED : undefined);
  t.match(await guest.cont(guest.qmp), { refusal: LOCKED });
});

t.test("a refusal of cont is no proof when the guest may have run", async (t) => {
  const moved = await adopted(t, "paused");
  moved.qemu.whim = ({ execute }) => {
    if (execute !== "cont") return undefined;
    moved.qemu.state.status = "io-error";
    return LOCKED;
  };
  await t.rejects(moved.guest.cont(moved.guest.qmp), { code: "qmp-command" });
  const ran = await adopted(t, "paused");
  ran.qemu.whim = ({ execute }) => {
    if (execute !== "cont") return undefined;
    // the guest ran for a moment, and was stopped again
    ran.qemu.become("running");
    ran.qemu.become("paused");
    return LOCKED;
  };
  await t.rejects(ran.guest.cont(ran.guest.qmp), { code: "qmp-command" });
  const silent = await adopted(t, "paused");
  silent.qemu.whim = ({ execute }) => {
    if (execute !== "cont") return undefined;
    void silent.qemu.end();
    return "silence";
  };
  await t.rejects(silent.guest.cont(silent.guest.qmp), { code: "qmp-disconnected" });
});

t.test("a QEMU that has ended is not adopted, and its end settles what waits for it", async (t) => {
  const { qemu, guest, adopt } = await adopted(t, "paused");
  await qemu.end();
  await bounded(guest.ended, 5000, "the end of QEMU");
  t.equal(await guest.monitor(), undefined);
  t.equal(await adopt(), undefined);
});

t.test("a caller that no longer waits for the end of QEMU is not told of it", async (t) => {
  const { guest, qemu } = await adopted(t, "paused");
  const told: string[] = [];
  const forget = guest.onEnd(() => void told.push("called off"));
  guest.onEnd(() => void told.push("waits"));
  forget();
  await qemu.end();
  await eventually(() => (told.length > 0 ? true : undefined), { timeoutMs: 10_000, what: "the end of QEMU" });
  t.same(told, ["waits"]);
});

t.test("a monitor that was lost is connected to again", async (t) => {
  const { qemu, guest } = await adopted(t, "paused");
  const first = guest.qmp;
  first.close();
  const again = (await guest.monitor()) as QmpClient;
  t.not(again, first);
  t.equal((await again.execute("query-status")).status, "paused");
  const told: string[] = [];
  const stop = guest.onResume(() => void told.push("resumed"));
  qemu.become("running");
  await eventually(() => (told.length > 0 ? true : undefined), { timeoutMs: 20_000, what: "the event RESUME" });
  stop();
});

t.test("a guest that somebody starts while no monitor is connected is noticed on the next connection", async (t) => {
  const { qemu, guest } = await adopted(t, "paused");
  const told: string[] = [];
  const stop = guest.onResume(() => void told.push("resumed"));
  guest.qmp.close();
  await guest.monitor();
  await guest.qmp.execute("query-status");
  t.same(told, [], "a guest that is still paused was not started");
  guest.qmp.close();
  await eventually(() => (qemu.clients === 0 ? true : undefined), {
    timeoutMs: 20_000,
    what: "a QEMU without a client",
  });
  qemu.become("running");
  await guest.monitor();
  await eventually(() => (told.length > 0 ? true : undefined), { timeoutMs: 20_000, what: "the guest seen running" });
  stop();
  guest.qmp.close();
  await guest.monitor();
  await guest.qmp.execute("query-status");
  t.same(told, ["resumed"], "nobody is called after that");
});

t.test("a QEMU that does not take quit is killed", async (t) => {
  const { qemu, guest } = await adopted(t, "paused");
  qemu.whim = ({ execute }) => (execute === "quit" ? "silence" : undefined);
  await guest.discard();
  t.notOk(qemu.isAlive);
});
