/** Tests how often a guest that runs here is looked at for offers. */
import { setImmediate } from "node:timers/promises";
import t, { type Test } from "tap";
import { MonitorLooks } from "../../../agent-destination/migration/what-is-there.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { greeting, Monitor, serve } from "../../support/fake-monitor.ts";
import { folder } from "../../support/link-fixtures.ts";

/** Makes a guest whose monitor counts its clients. */
async function running(t: Test) {
  const counted = { clients: 0 };
  const qmp = await serve(t, (socket) => {
    counted.clients++;
    new Monitor(socket, () => undefined).reply(greeting());
  });
  return { guest: { name: "web", qmp }, counted };
}

t.test("all offers for a guest that runs here share one look at a time, with a pause between", async (t) => {
  const { guest, counted } = await running(t);
  const clock = new FakeClock();
  const looks = new MonitorLooks(clock);
  const flood = (): Promise<readonly unknown[]> => Promise.all(Array.from({ length: 50 }, () => looks.lookAt(guest)));
  const first = await flood();
  t.match(
    first,
    Array.from({ length: 50 }, () => [{ code: "guest-exists", message: /web has a QEMU/ }]),
  );
  t.equal(counted.clients, 1);
  const second = flood();
  await clock.untilWaitedFor();
  await clock.advance(1999);
  t.equal(counted.clients, 1, "the guest is left alone for two seconds");
  await clock.advance(1);
  t.match(await second, [[{ code: "guest-exists" }]]);
  t.equal(counted.clients, 2);
});

t.test("a guest that is not here is looked at for each offer at once, and waits for no other guest", async (t) => {
  const { guest: busy, counted } = await running(t);
  const clock = new FakeClock();
  const looks = new MonitorLooks(clock);
  await looks.lookAt(busy);
  const absent = { name: "absent", qmp: `${folder(t)}/absent.qmp` };
  for (let offer = 0; offer < 3; offer++) t.same(await looks.lookAt(absent), []);
  await setImmediate();
  t.equal(clock.pending, 0);
  t.equal(counted.clients, 1);
});
