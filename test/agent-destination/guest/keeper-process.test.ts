/** Tests the keeper of a QEMU's monitor that waits for the next QEMU. */

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import type { Socket } from "node:net";
import t, { type Test } from "tap";
import { KeeperProcess } from "../../../agent-destination/guest/keeper-process.ts";
import { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { bounded, eventually } from "../../support/bounded.ts";
import { greeting, Monitor, serve } from "../../support/fake-monitor.ts";

const WITHIN = { timeoutMs: 10_000 };
const GREETING = greeting("oob");

const childOf = (keeper: KeeperProcess): ChildProcess => (keeper as unknown as { child: ChildProcess }).child;

function take(t: Test): KeeperProcess {
  const keeper = KeeperProcess.take();
  t.teardown(() => void childOf(keeper).kill("SIGKILL"));
  return keeper;
}

t.test("a keeper that was not needed is used for the next QEMU, and of two that wait one ends", async (t) => {
  const [first, second] = [take(t), take(t)];
  t.not(first, second);
  first.dismiss();
  const ended = once(childOf(second), "exit");
  second.dismiss();
  t.same(await bounded(ended, WITHIN.timeoutMs, "the end of the second"), [0, null]);
  t.equal(take(t), first);
  t.not(take(t), first, "a keeper is used for one QEMU only");
});

t.test("a keeper that has died while it waited is not used for the next QEMU", async (t) => {
  const dead = take(t);
  dead.dismiss();
  const ended = once(childOf(dead), "exit");
  childOf(dead).kill("SIGKILL");
  await bounded(ended, WITHIN.timeoutMs, "the end of the keeper");
  t.not(take(t), dead);
  const late = take(t);
  const alsoEnded = once(childOf(late), "exit");
  childOf(late).kill("SIGKILL");
  await bounded(alsoEnded, WITHIN.timeoutMs, "the end of the keeper");
  late.dismiss();
  t.not(take(t), late, "a keeper that is dead when it is given back is not used either");
});

t.test(
  "the next keeper is started after one was needed, and has the monitor of whichever QEMU it is told",
  async (t) => {
    KeeperProcess.prepare();
    const qmp = await serve(t, (socket: Socket) => {
      const monitor = new Monitor(socket, ({ execute, id }) => {
        if (execute === "query-status") monitor.reply({ return: { status: "running", running: true }, id });
      });
      monitor.reply(GREETING);
    });
    const keeper = take(t);
    keeper.begin(qmp, `${qmp}.keeper`);
    KeeperProcess.prepare();
    const connect = (): Promise<QmpClient | undefined> =>
      QmpClient.connect(`${qmp}.keeper`, WITHIN).catch(() => undefined);
    const client = await eventually(connect, { ...WITHIN, what: "the keeper's socket" });
    t.equal((await client.execute("query-status")).status, "running");
    client.close();
    const next = take(t);
    t.not(next, keeper);
    t.equal(childOf(next).exitCode, null);
    const further = take(t);
    t.not(further, next, "the next keeper is used for one QEMU only");
    KeeperProcess.prepare();
    KeeperProcess.prepare();
    t.not(take(t), take(t), "only one keeper waits at a time");
  },
);
