/** Tests `RunState`: it follows QEMU's events, and misses none that comes close to the answer of query-status. */
import t, { type Test } from "tap";
import { RunState } from "../../../agent-source/guest/run-state.ts";
import { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { Monitor, serve } from "../../support/fake-monitor.ts";

const event = (name: string, seconds: number) => ({ event: name, data: {}, timestamp: { seconds, microseconds: 0 } });

/** Starts a QEMU that writes `around` in one piece with its answer to query-status. */
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
    // QEMU's answer comes after the events
    await qmp.execute("query-status");
  };
  return { qmp, say };
}

t.test("the run state follows QEMU's events from the answer to query-status on", async (t) => {
  const { qmp, say } = await qemu(t, "running");
  const runState = await RunState.begin(qmp);
  t.equal(runState.standsStill, false);
  const stopped = runState.stopped;
  await say(event("STOP", 5));
  t.equal(runState.standsStill, true);
  t.equal(await stopped, 5e6);
  await say(event("RESUME", 6));
  t.equal(runState.standsStill, false);
  const again = runState.stopped;
  await say(event("STOP", 7));
  t.equal(await again, 7e6, "the promise is settled by the stop after the resume, not by the stop before it");
});

t.test("an event that comes in one piece with the answer is not lost", async (t) => {
  const before = await qemu(t, "paused", { before: [event("STOP", 1)] });
  t.equal((await RunState.begin(before.qmp)).standsStill, true);
  const after = await qemu(t, "paused", { after: [event("RESUME", 2)] });
  t.equal((await RunState.begin(after.qmp)).standsStill, false, "an event after the answer is newer than the answer");
});

t.test("a caller that waits for a stop across a resume gets the next stop", async (t) => {
  const { qmp, say } = await qemu(t, "paused");
  const runState = await RunState.begin(qmp);
  const stopped = runState.stopped;
  await say(event("RESUME", 3), event("STOP", 4));
  t.equal(await stopped, 4e6);
});
