import t, { type Test } from "tap";
import { RunState } from "../../../agent-source/guest/run-state.ts";
import { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { Monitor, serve } from "../../support/fake-monitor.ts";

const event = (name: string, seconds: number) => ({ event: name, data: {}, timestamp: { seconds, microseconds: 0 } });

/** A QEMU that says `around` in one piece with its answer to query-status. */
async function qemu(t: Test, status: string, around: { before?: object[]; after?: object[] } = {}) {
  let monitor: Monitor | undefined;
  const path = await serve(t, (socket) => {
    monitor = new Monitor(socket, ({ id }, it) => {
      const answer = { return: { status, running: status === "running" }, id };
      const lines = [...(around.before ?? []), answer, ...(around.after ?? [])];
      it.socket.write(lines.map((line) => `${JSON.stringify(line)}\r\n`).join(""));
    });
    monitor.reply({ QMP: { version: { qemu: { major: 10, minor: 0, micro: 0 }, package: "" }, capabilities: [] } });
  });
  const qmp = await QmpClient.connect(path);
  t.teardown(() => qmp.close());
  const say = async (...events: object[]): Promise<void> => {
    for (const one of events) monitor?.reply(one);
    // answered behind them
    await qmp.execute("query-status");
  };
  return { qmp, say };
}

t.test("it follows what QEMU says from the answer on", async (t) => {
  const { qmp, say } = await qemu(t, "running");
  const watch = await RunState.begin(qmp);
  t.equal(watch.standsStill, false);
  const stopped = watch.stopped;
  await say(event("STOP", 5));
  t.equal(watch.standsStill, true);
  t.equal(await stopped, 5e6);
  await say(event("RESUME", 6));
  t.equal(watch.standsStill, false);
  const again = watch.stopped;
  await say(event("STOP", 7));
  t.equal(await again, 7e6, "the stop behind the resume, not the one before");
});

t.test("what comes in one piece with the answer is not lost", async (t) => {
  const before = await qemu(t, "paused", { before: [event("STOP", 1)] });
  t.equal((await RunState.begin(before.qmp)).standsStill, true);
  const after = await qemu(t, "paused", { after: [event("RESUME", 2)] });
  t.equal((await RunState.begin(after.qmp)).standsStill, false, "an event behind it is newer");
});

t.test("a stop that is waited for across a resume is the next one", async (t) => {
  const { qmp, say } = await qemu(t, "paused");
  const watch = await RunState.begin(qmp);
  const stopped = watch.stopped;
  await say(event("RESUME", 3), event("STOP", 4));
  t.equal(await stopped, 4e6);
});
