/** Tests the ways to a QEMU's monitor, with real keepers: neither the agent's end nor the keeper's cuts QEMU off. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { GuestMonitor } from "../../../agent-destination/guest/guest-monitor.ts";
import { KeeperProcess } from "../../../agent-destination/guest/keeper-process.ts";
import { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { eventually } from "../../support/bounded.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { FakeQemu } from "../../support/fake-qemu.ts";
import { folder } from "../../support/link-fixtures.ts";

const BOUND = { timeoutMs: 20_000 };
const WITHIN = { timeoutMs: 15_000 };

interface Ways {
  /** The clock of the pauses and the limits. Keepers and sockets take real time. */
  readonly clock: FakeClock;
  readonly qemu: FakeQemu;
  readonly second: FakeQemu;
  readonly places: { readonly path: string; readonly second: string };
  monitor(): GuestMonitor;
}

/** Starts a QEMU with two monitors, like one that is started for post-copy. */
async function ways(t: Test): Promise<Ways> {
  const directory = folder(t);
  const places = { path: join(directory, "m.monitor"), second: join(directory, "m.monitor-2") };
  const qemu = await FakeQemu.start(t, { status: "paused" }, join(directory, "web.qmp"));
  const second = await FakeQemu.start(t, { status: "paused" }, places.second);
  const definition = { name: "web", qmp: qemu.path, directory, command: ["qemu"] as const, digest: "" };
  t.teardown(() => {
    for (const pid of keepersOf(qemu.path)) process.kill(pid, "SIGKILL");
    // the keeper that waits for the next QEMU
    KeeperProcess.take().end();
  });
  const clock = new FakeClock();
  // after the test nothing is tried any more, whatever its limits are
  const isOver = deferred<void>();
  t.teardown(() => isOver.resolve());
  void clock.walkUntil(isOver.promise);
  const monitor = (): GuestMonitor => {
    const made = GuestMonitor.of({ ...definition, command: ["qemu"] }, places, clock);
    t.teardown(() => made.close());
    return made;
  };
  return { clock, qemu, second, places, monitor };
}

/** Finds the keepers of a QEMU, whose command lines name its monitor. */
function keepersOf(path: string): readonly number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => {
      if (!Number.isInteger(pid)) return false;
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "latin1").startsWith(`ferry-monitor-keeper ${path}`);
      } catch {
        return false;
      }
    });
}

/** Kills the keeper, and waits until it is gone. @returns its pid */
async function killKeeper(path: string): Promise<number> {
  const [pid] = keepersOf(path);
  if (pid === undefined) throw new Error("there is no keeper");
  process.kill(pid, "SIGKILL");
  const gone = (): true | undefined => (keepersOf(path).includes(pid) ? undefined : true);
  await eventually(gone, { ...WITHIN, what: "the end of the keeper" });
  return pid;
}

const lives = async (): Promise<boolean> => false;

async function kept({ monitor }: Ways): Promise<GuestMonitor> {
  const made = monitor();
  await made.connectWhenReady(BOUND);
  await made.keep(BOUND, lives);
  return made;
}

const statusOf = async (qmp: QmpClient): Promise<string> => (await qmp.execute("query-status")).status;

/** Asks QEMU, by whichever way leads to it. A connection that has broken is noticed only when it is used. */
const answers = (made: GuestMonitor): Promise<string> =>
  eventually(
    () =>
      made
        .open()
        .then(statusOf)
        .catch(() => undefined),
    { ...WITHIN, what: "an answer" },
  );

/** Waits for a keeper other than the one that was killed. */
const another = (path: string, killed: number): Promise<number> =>
  eventually(() => keepersOf(path).find((pid) => pid !== killed), { ...WITHIN, what: "another keeper" });

t.test("a killed keeper is followed by another one, and events come over whichever there is", async (t) => {
  const found = await ways(t);
  const { qemu } = found;
  const made = await kept(found);
  const events: string[] = [];
  made.subscribe(
    ({ event }) => void events.push(event),
    () => void events.push("renewed"),
  );
  const killed = await killKeeper(qemu.path);
  await another(qemu.path, killed);
  t.equal(await answers(made), "paused");
  // QEMU sends the event to both of its monitors
  for (const one of [qemu, found.second]) one.become("running");
  await eventually(() => (events.includes("RESUME") ? true : undefined), { ...WITHIN, what: "the event" });
  t.ok(events.includes("renewed"), "and a listener is told that it may have missed events");
});

t.test("callers that open a lost monitor at once share one connection, since a keeper serves its newest", async (t) => {
  const found = await ways(t);
  // without a second monitor, every caller goes to the keeper
  found.second.greets = false;
  const made = await kept(found);
  const [keeper] = keepersOf(found.qemu.path);
  made.client?.close();
  const clients = await Promise.all(Array.from({ length: 20 }, () => made.open()));
  t.equal(new Set(clients).size, 1);
  t.equal(await answers(made), "paused");
  t.equal(made.client, clients[0], "and the keeper's watcher did not cut it off");
  t.same(keepersOf(found.qemu.path), [keeper]);
});

t.test("while QEMU greets no client, the second monitor leads to it", async (t) => {
  const found = await ways(t);
  const { qemu, places } = found;
  const made = await kept(found);
  const tells = async (): Promise<true | undefined> => (found.second.clients > 0 ? true : undefined);
  await eventually(tells, { ...WITHIN, what: "the second monitor" });
  qemu.greets = false;
  await killKeeper(qemu.path);
  found.second.state.status = "running";
  t.equal(await answers(made), "running");
  t.ok(existsSync(places.second));
});

t.test("a keeper that QEMU does not greet in time ends, since it would hold the monitor for good", async (t) => {
  const { clock, qemu, monitor } = await ways(t);
  qemu.greets = false;
  const taken = t.rejects(monitor().takeOver(BOUND, { missesPages: true, hasEnded: lives }), { code: "qmp-timeout" });
  const came = (): true | undefined => (qemu.clients > 0 ? true : undefined);
  await eventually(came, { ...WITHIN, what: "the keeper at the monitor" });
  clock.jump(BOUND.timeoutMs);
  await taken;
  const none = (): true | undefined => (keepersOf(qemu.path).length === 0 ? true : undefined);
  await eventually(none, { ...WITHIN, what: "the end of the keeper" });
});

t.test("an agent that takes over finds the keeper, whatever it knows of post-copy, and watches it", async (t) => {
  for (const missesPages of [true, false]) {
    const found = await ways(t);
    const { qemu } = found;
    (await kept(found)).close();
    const [keeper] = keepersOf(qemu.path);
    const made = found.monitor();
    await made.takeOver(BOUND, { missesPages, hasEnded: lives });
    t.equal(await statusOf(await made.open()), "paused");
    t.same(keepersOf(qemu.path), [keeper], "it is the same keeper");
    await another(qemu.path, await killKeeper(qemu.path));
  }
});

t.test("without a keeper, an agent starts one where pages are missing, and asks QEMU itself elsewhere", async (t) => {
  const missing = await ways(t);
  const pulls = missing.monitor();
  await pulls.takeOver(BOUND, { missesPages: true, hasEnded: lives });
  t.equal(keepersOf(missing.qemu.path).length, 1);
  t.equal(await statusOf(pulls.qmp), "paused");
  const whole = await ways(t);
  const made = whole.monitor();
  await made.takeOver(BOUND, { missesPages: false, hasEnded: lives });
  t.same(keepersOf(whole.qemu.path), []);
  t.equal(await statusOf(await made.open()), "paused");
});

t.test("the monitor of a guest that is let go of is free, without a keeper and a second monitor", async (t) => {
  const found = await ways(t);
  const { qemu, places } = found;
  const made = await kept(found);
  made.letGo();
  const none = (): true | undefined => (keepersOf(qemu.path).length === 0 ? true : undefined);
  await eventually(none, { ...WITHIN, what: "the end of the keeper" });
  t.notOk(existsSync(places.path));
  t.notOk(existsSync(places.second));
  const other = await QmpClient.connect(qemu.path);
  t.equal(await statusOf(other), "paused");
  other.close();
});

t.test("no keeper is started for a QEMU that has ended, and no file stays", async (t) => {
  const found = await ways(t);
  const { qemu, places } = found;
  const made = found.monitor();
  await made.connectWhenReady(BOUND);
  await made.keep(BOUND, async () => true);
  await qemu.end();
  const none = (): true | undefined => (keepersOf(qemu.path).length === 0 ? true : undefined);
  await eventually(none, { ...WITHIN, what: "the end of the keeper" });
  made.close();
  made.removeFiles();
  for (const path of [qemu.path, places.path, places.second]) t.notOk(existsSync(path));
});
