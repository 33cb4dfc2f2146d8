/** Tests `OwnQemu`: which process answers at the monitor of the source QEMU, and what the agent says in which state. */
import t, { type Test } from "tap";
import { OwnQemu } from "../../../agent-source/guest/own-qemu.ts";
import { SOURCE_RECORDS, type SourceRecord } from "../../../shared/protocol/ownership.ts";
import { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { type Clock, systemClock } from "../../../shared/runtime/clock.ts";
import { loadSourceConfig } from "../../../shared/runtime/config/config.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { eventually } from "../../support/bounded.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { FakeQemu } from "../../support/fake-qemu.ts";
import { turn } from "../../support/sending.ts";
import { placesIn } from "../../support/source-again.ts";

const QMP = "--qmp-timeout=5s";
const OTHER = { code: "qemu-failed", message: /Process \d+ answers at .*, not process \d+/, advice: /Another QEMU/ };

const TOKEN = "aa";
const recordOf = (kind: SourceRecord["kind"]): SourceRecord => ({
  ...{ kind, guest: "web", destination: "beta:7411", sequence: 1, startedAtMs: 0 },
  grant: { token: TOKEN, epoch: 1, paused: false },
});
/** The guest was never granted. */
const OURS = { record: recordOf("plan"), refusedToken: undefined };

async function found(t: Test, status: string, clock: Clock = systemClock) {
  const qemu = await FakeQemu.start(t, { status });
  const config = loadSourceConfig([...placesIn(t, qemu.path), QMP], {});
  const own = new OwnQemu("web", config, clock, qemu.process);
  const connect = async (path = qemu.path): Promise<QmpClient> => {
    const qmp = await QmpClient.connect(path);
    t.teardown(() => qmp.close());
    return qmp;
  };
  return { qemu, config, own, connect };
}

t.test("the QEMU of a migration is the process that answers when the migration begins", async (t) => {
  const { qemu, config, connect } = await found(t, "running");
  const own = new OwnQemu("web", config, systemClock);
  t.equal(own.process, undefined);
  await own.meet(await connect(), qemu.path);
  t.same(own.process, qemu.process);
});

t.test("cont is said in the states in which a migration leaves a guest, and in no other state", async (t) => {
  for (const status of ["postmigrate", "paused"]) {
    const { qemu, own, connect } = await found(t, status);
    await own.cont(await connect(), OURS);
    t.same(qemu.said, ["cont"], status);
  }
  const { qemu, own, connect } = await found(t, "running");
  const qmp = await connect();
  const others = ["running", "prelaunch", "inmigrate", "io-error", "shutdown", "internal-error", "finish-migrate"];
  for (const status of others) {
    qemu.state.status = status;
    const error = { code: "qemu-failed", message: new RegExp(`is ${status}, so the agent does not start the guest`) };
    await t.rejects(own.cont(qmp, OURS), error);
  }
  t.same(qemu.said, []);
});

t.test("cont is said only where the source may run the guest", async (t) => {
  const { qemu, own, connect } = await found(t, "postmigrate");
  const qmp = await connect();
  for (const kind of [undefined, ...SOURCE_RECORDS])
    for (const refusedToken of [undefined, "bb", TOKEN]) {
      qemu.state.status = "postmigrate";
      qemu.said.length = 0;
      const mayRun = kind === "granted" ? refusedToken === TOKEN : kind !== "released";
      const said = own.cont(qmp, { record: kind && recordOf(kind), refusedToken });
      if (mayRun) await said;
      else
        await t.rejects(said, {
          code: "in-doubt",
          message: `The journal says that web is ${kind}, so the agent does not start it`,
        });
      t.same(qemu.said, mayRun ? ["cont"] : [], `the record is ${kind}, and ${refusedToken} is refused`);
    }
});

t.test("quit is said only in the states that are given, and returns when the process has ended", async (t) => {
  const { qemu, own, connect } = await found(t, "running");
  const qmp = await connect();
  await t.rejects(own.quit(qmp, ["postmigrate", "paused"]), { message: /is running, not postmigrate or paused/ });
  t.same(qemu.said, []);
  qemu.state.status = "postmigrate";
  await own.quit(qmp, ["postmigrate"]);
  t.same(qemu.said, ["quit"]);
  t.equal(await own.hasEnded(), true);
});

t.test("nothing is said to a process that is not the record's", async (t) => {
  const { qemu, config, own } = await found(t, "postmigrate");
  await qemu.end();
  const other = await FakeQemu.start(t, { status: "postmigrate" }, qemu.path);
  const qmp = await QmpClient.connect(other.path);
  t.teardown(() => qmp.close());
  await t.rejects(own.cont(qmp, OURS), OTHER);
  await t.rejects(own.quit(qmp, ["postmigrate"]), OTHER);
  await t.rejects(own.cancelMigration(qmp), OTHER);
  t.equal(await own.connect(), undefined, "the process of the record has ended, whichever process answers there now");
  const alive = new OwnQemu("web", config, systemClock, (await FakeQemu.start(t, { status: "postmigrate" })).process);
  await t.rejects(alive.connect(), OTHER);
  t.same(other.said, []);
});

t.test("nothing is said to any process when the record names none", async (t) => {
  const { qemu, config, connect } = await found(t, "postmigrate");
  const nameless = new OwnQemu("web", config, systemClock);
  const qmp = await connect();
  const error = { code: "qemu-failed", message: /does not name the QEMU of web/ };
  await t.rejects(nameless.cont(qmp, OURS), error);
  await t.rejects(nameless.quit(qmp, ["postmigrate"]), error);
  await t.rejects(nameless.cancelMigration(qmp), error);
  await t.rejects(nameless.connect(), error);
  t.same(await nameless.look(false), { own: "unknown", status: "", anotherRuns: false });
  t.same(qemu.said, []);
});

t.test("a look tells from QEMU's state whether the guest is active or retired", async (t) => {
  const { qemu, own } = await found(t, "postmigrate");
  const cases = [
    // the state of QEMU, what a look sees after precopy, and what it sees after post-copy
    ["postmigrate", "retired", "retired"],
    ["running", "active", "active"],
    // after precopy somebody has taken QEMU out of postmigrate; in post-copy this agent has stopped it
    ["paused", "active", "retired"],
    ["finish-migrate", "active", "retired"],
  ] as const;
  for (const [status, whole, postcopy] of cases) {
    qemu.state.status = status;
    t.same(await own.look(false), { own: whole, status, anotherRuns: false }, status);
    t.same(await own.look(true), { own: postcopy, status, anotherRuns: false }, `${status}, post-copy`);
  }
  t.same(qemu.said, []);
});

t.test("a look that is given an open monitor connects to no other", async (t) => {
  const { own, connect } = await found(t, "running");
  const qmp = await connect();
  t.match(await own.look(false, qmp), { own: "active" });
  t.ok(qmp.isOpen, "the look leaves the monitor open");
});

t.test("a look at a QEMU that does not answer within 2 s tells nothing", async (t) => {
  const clock = new FakeClock();
  const { qemu, own } = await found(t, "postmigrate", clock);
  const asked = deferred<void>();
  qemu.whim = ({ execute }) => {
    if (execute !== "query-status") return undefined;
    asked.resolve();
    return "silence";
  };
  const seen = own.look(false);
  await asked.promise;
  await clock.advance(2000);
  t.same(await seen, { own: "unknown", status: "", anotherRuns: false });
});

t.test("a QEMU that is still there 10 s after quit is a fault", async (t) => {
  const clock = new FakeClock();
  const { qemu, own, connect } = await found(t, "postmigrate", clock);
  const end = qemu.end.bind(qemu);
  qemu.end = () => Promise.resolve();
  let isOver = false;
  const quits = own.quit(await connect(), ["postmigrate"]).finally(() => {
    isOver = true;
  });
  const rejected = t.rejects(quits, { code: "qemu-failed", message: /was told to quit, and is still there/ });
  while (!isOver) {
    await turn();
    await clock.advance(20);
  }
  await rejected;
  t.equal(clock.monotonicMs() > 10_000, true);
  qemu.end = end;
});

t.test("a look after the end of the record's QEMU sees whether another QEMU runs the guest", async (t) => {
  const { qemu, own } = await found(t, "postmigrate");
  await qemu.end();
  t.same(await own.look(false), { own: "gone", status: "", anotherRuns: false });
  const other = await FakeQemu.start(t, { status: "running" }, qemu.path);
  for (const [status, anotherRuns] of [
    ["running", true],
    ["paused", true],
    ["inmigrate", false],
    ["postmigrate", false],
  ] as const) {
    other.state.status = status;
    t.same(await own.look(false), { own: "gone", status: "", anotherRuns }, status);
  }
  other.whim = () => "silence";
  t.match(await own.look(false), { own: "gone", anotherRuns: true }, "a QEMU that does not answer may run the guest");
  const free = (): true | undefined => (other.clients === 0 ? true : undefined);
  await eventually(free, { timeoutMs: 20_000, what: "the agent to let go of the other QEMU's monitor" });
  t.same(other.said, []);
});

t.test("a look tells nothing while another process answers and the record's QEMU still lives", async (t) => {
  const { qemu, config } = await found(t, "running");
  const own = new OwnQemu("web", config, systemClock, (await FakeQemu.start(t, { status: "postmigrate" })).process);
  t.same(await own.look(false), { own: "unknown", status: "", anotherRuns: false });
  t.same(qemu.said, []);
});
