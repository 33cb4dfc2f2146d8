/** Tests the limits of time of `QmpClient`, with a clock that a test moves. The monitor is one of this program. */
import type { Socket } from "node:net";
import t, { type Test } from "tap";
import { QmpClient } from "../../../../shared/qemu/qmp/qmp-client.ts";
import { deferred } from "../../../../shared/runtime/deferred.ts";
import { eventually } from "../../../support/bounded.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { type Command, greeting, Monitor, serve } from "../../../support/fake-monitor.ts";

const WITHIN = { timeoutMs: 60_000, everyMs: 1 };
const HOUR_MS = 3_600_000;

/** Connects to a monitor that answers nothing by itself. @returns what it was told as well */
async function pair(t: Test) {
  const clock = new FakeClock();
  const told: Command[] = [];
  let monitor: Monitor | undefined;
  const path = await serve(t, (socket) => {
    monitor = new Monitor(socket, (command) => void told.push(command));
    monitor.reply(greeting());
  });
  const qmp = await QmpClient.connect(path, {}, clock);
  t.teardown(() => qmp.close());
  const tell = (message: unknown): void => monitor?.reply(message);
  const untilTold = (count: number): Promise<true> =>
    eventually(() => told.length >= count || undefined, { ...WITHIN, what: `command ${count}` });
  return { clock, qmp, told, tell, untilTold };
}

t.test("a call has ten seconds, and an answer that comes later is ignored", async (t) => {
  const { clock, qmp, told, tell, untilTold } = await pair(t);
  t.equal(clock.pending, 0, "an open monitor alone waits for nothing");
  const late = t.rejects(qmp.execute("stop"), { code: "qmp-timeout", message: /answer stop within 10000 ms/ });
  await untilTold(1);
  await clock.advance(9_999);
  t.equal(clock.pending, 1);
  await clock.advance(1);
  await late;
  const next = qmp.execute("query-status");
  await untilTold(2);
  tell({ return: {}, id: told[0]?.id });
  tell({ return: { status: "paused", running: false }, id: told[1]?.id });
  t.equal((await next).status, "paused");
  t.equal(clock.pending, 0, "a call that was answered leaves no timer");
});

t.test("a wait for an event lasts as long as its caller says, and ends with the monitor", async (t) => {
  const { clock, qmp, tell } = await pair(t);
  const seen = qmp.waitFor("STOP", undefined, { timeoutMs: 2 * HOUR_MS });
  const late = t.rejects(qmp.waitFor("STOP", undefined, { timeoutMs: HOUR_MS }), { code: "qmp-timeout" });
  await clock.advance(HOUR_MS);
  await late;
  tell({ event: "STOP", timestamp: { seconds: 1, microseconds: 2 } });
  t.equal((await seen).timestampUs, 1_000_002);
  const closed = t.rejects(qmp.waitFor("STOP", undefined, { timeoutMs: HOUR_MS }), { code: "qmp-disconnected" });
  qmp.close();
  await closed;
  t.equal(clock.pending, 0);
});

t.test("the greeting and the negotiation together have the time of one call", async (t) => {
  const clock = new FakeClock();
  const [came, negotiated] = [deferred<Socket>(), deferred<void>()];
  const path = await serve(t, (socket) => {
    // the client's negotiation is read, and never answered
    socket.once("data", () => negotiated.resolve());
    came.resolve(socket);
  });
  const failed = t.rejects(QmpClient.connect(path, { timeoutMs: HOUR_MS }, clock), {
    code: "qmp-timeout",
    message: /answer qmp_capabilities within 60000 ms/,
  });
  const socket = await came.promise;
  await clock.advance(HOUR_MS - 60_000);
  socket.write(`${JSON.stringify(greeting())}\r\n`);
  await negotiated.promise;
  await clock.advance(60_000);
  await failed;
});

t.test("a monitor that does not greet in time is qmp-timeout, with what may be the reason", async (t) => {
  const clock = new FakeClock();
  const path = await serve(t, () => undefined);
  const failed = t.rejects(QmpClient.connect(path, {}, clock), {
    code: "qmp-timeout",
    message: /did not greet within 10000 ms/,
    advice: /one client/,
  });
  await clock.untilWaitedFor();
  await clock.advance(10_000);
  await failed;
});
