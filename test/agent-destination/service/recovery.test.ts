/** Tests a destination agent that starts again, with each record that it may find, and whatever QEMU may be doing. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { eventually } from "../../support/bounded.ts";
import { ID, POSTCOPY, startAgain } from "../../support/destination-again.ts";
import { FakeQemu } from "../../support/fake-qemu.ts";

const WITHIN = { timeoutMs: 10_000 };

t.test("a waiting guest that is whole waits on, for its source or an operator", async (t) => {
  for (const status of ["paused", "prelaunch"]) {
    const { view, qemu, settle, written } = await startAgain(t, { kind: "waiting", status });
    t.match(view(), {
      status: "inDoubt",
      error: { code: "in-doubt", message: /silent/, guestNow: /as a whole, paused/ },
    });
    t.equal((await settle("standing")).standing, "waiting");
    t.equal(view().status, "inDoubt", "a source that only asks leaves it to the operator");
    t.same([...qemu.said, ...written], []);
  }
});

t.test("a waiting guest with a mark of the refusal is refused, and its copy is kept", async (t) => {
  const { qemu, settle } = await startAgain(t, { kind: "waiting", status: "paused", isMarked: true });
  t.equal((await settle("grant")).standing, "refused");
  t.ok(qemu.isAlive);
  t.same(qemu.said, []);
});

t.test("a waiting guest that somebody has started has arrived", async (t) => {
  for (const status of ["running", "postmigrate"]) {
    const { qemu, view, record, settle } = await startAgain(t, { kind: "waiting", status });
    t.equal(view().status, "moved", status);
    t.match(await record(), { kind: "arrived" });
    t.equal((await settle("withdraw")).standing, "running");
    t.same(qemu.said, [], "nothing is said to its QEMU");
  }
});

t.test("a waiting guest that is not whole, or whose QEMU has ended, is refused for good", async (t) => {
  for (const status of ["inmigrate", "gone"]) {
    const { qemu, until, untilWritten, settle } = await startAgain(t, { kind: "waiting", status });
    await until("failed");
    await untilWritten({ kind: "refused", heard: true });
    t.notOk(qemu.isAlive, status);
    t.equal((await settle("grant")).standing, "refused");
  }
});

t.test("a guest with the record `running` that stands still is started, once", async (t) => {
  const { qemu, until, untilWritten, settle } = await startAgain(t, { kind: "running", status: "paused" });
  await until("moved");
  t.same(qemu.said, ["cont", "announce-self"]);
  await untilWritten({ kind: "arrived" });
  t.match(await settle("grant"), { standing: "running" });
});

t.test("a guest with the record `running` that was granted paused has arrived as it is", async (t) => {
  const { qemu, until } = await startAgain(t, { kind: "running", status: "paused", paused: true });
  await until("moved");
  t.notOk(qemu.said.includes("cont"));
});

t.test("a guest with the record `running` that has run has arrived, and is never started again", async (t) => {
  for (const status of ["running", "postmigrate", "io-error"]) {
    const { qemu, until, untilWritten } = await startAgain(t, { kind: "running", status });
    await until("moved");
    await untilWritten({ kind: "arrived" });
    t.same(qemu.said, [], status);
  }
});

t.test("a guest with the record `running` and a mark is refused and kept, since the mark came last", async (t) => {
  const { qemu, settle, untilWritten } = await startAgain(t, { kind: "running", status: "paused", isMarked: true });
  await untilWritten({ kind: "refused" });
  t.equal((await settle("grant")).standing, "refused");
  t.same(qemu.said, []);
});

t.test("a guest with the record `running` whose QEMU has ended may have run: only an operator knows", async (t) => {
  const { view, settle, record } = await startAgain(t, { kind: "running", status: "gone" });
  t.match(view(), {
    status: "inDoubt",
    error: { code: "in-doubt", message: /was started here, and its QEMU has ended/ },
  });
  t.equal((await settle("grant")).standing, "lost");
  t.equal((await settle("withdraw")).standing, "lost");
  t.match(await record(), { kind: "running" });
});

t.test("a guest whose QEMU refuses cont did not run, and the source is told so", async (t) => {
  const came = { kind: "running", status: "paused" } as const;
  const { qemu, settle, untilWritten, agent } = await startAgain(t, { ...came, isMute: true });
  qemu.whim = ({ execute }) => (execute === "cont" ? 'Failed to get "write" lock' : undefined);
  qemu.greets = true;
  t.match(await untilWritten({ kind: "refused" }), { reason: /did not start the guest: .*"write" lock/ });
  t.match(await settle("grant"), { standing: "refused", reason: /"write" lock/ });
  t.ok(qemu.isAlive, "the whole copy is kept until the source needs it no more");
  t.equal((await settle("withdraw")).standing, "refused");
  await eventually(() => (qemu.isAlive ? undefined : true), { ...WITHIN, what: "the end of the copy" });
  t.match(agent.desk.getMigration(ID), { status: "failed" });
});

t.test("a whole copy is kept until its refusal was heard, and then ended", async (t) => {
  const reason = "its disk was full";
  const { qemu, settle, untilWritten, view } = await startAgain(t, { kind: "refused", status: "paused", reason });
  t.match(view(), { status: "inDoubt", error: { guestNow: /a whole copy is kept here/ } });
  t.equal((await settle("standing")).standing, "waiting", "a source that only asks may have lost its own copy");
  t.match(await settle("grant"), { standing: "refused", reason: /disk was full/ });
  t.ok(qemu.isAlive);
  t.equal((await settle("withdraw")).standing, "refused");
  await untilWritten({ kind: "refused", heard: true, reason });
  await eventually(() => (qemu.isAlive ? undefined : true), { ...WITHIN, what: "the end of the copy" });
});

t.test("a refused copy is ended when the refusal was heard, or when the copy is not whole", async (t) => {
  for (const came of [{ status: "paused", heard: true }, { status: "inmigrate" }] as const) {
    const { qemu } = await startAgain(t, { kind: "refused", ...came });
    await eventually(() => (qemu.isAlive ? undefined : true), { ...WITHIN, what: "the end of the copy" });
  }
  // a QEMU that has ended need not be looked at again
  await (await startAgain(t, { kind: "refused", status: "gone" })).untilWritten({ heard: true });
});

t.test("a refused copy that somebody has started is reported, and never ended", async (t) => {
  for (const heard of [{}, { heard: true }] as const) {
    const { qemu, view, settle } = await startAgain(t, { kind: "refused", status: "running", ...heard });
    t.match(view(), { status: "doubled", error: { code: "two-copies", advice: /stop/ } });
    t.equal((await settle("withdraw")).standing, "running");
    t.same(qemu.said, []);
    await qemu.end();
    t.equal((await settle("standing")).standing, "lost");
  }
});

t.test("a refused copy that misses pages is not kept, since nobody can start it", async (t) => {
  for (const kind of ["waiting", "running"] as const) {
    const came = { kind, status: "paused", migration: "postcopy-active", isMarked: true, postcopy: POSTCOPY };
    const { qemu, untilWritten } = await startAgain(t, came);
    await untilWritten({ kind: "refused", heard: true });
    await eventually(() => (qemu.isAlive ? undefined : true), { ...WITHIN, what: "the end of the copy" });
    t.notOk(qemu.said.includes("cont"));
  }
});

t.test("a monitor that cannot be reached proves nothing, and is asked again until it answers", async (t) => {
  for (const [kind, standing] of [
    ["waiting", "waiting"],
    ["running", "starting"],
  ] as const) {
    const { qemu, view, settle, written, until } = await startAgain(t, { kind, status: "paused", isMute: true });
    t.equal((await settle("standing")).standing, standing);
    const told = (): true | undefined =>
      /cannot be looked at yet/.test(view().error?.message ?? "") ? true : undefined;
    await eventually(told, { ...WITHIN, what: "the operator to be told" });
    t.same([...qemu.said, ...written], [], "the guest is neither started nor refused");
    qemu.greets = true;
    await until(kind === "waiting" ? "granting" : "moved");
  }
});

t.test(
  "nothing is said to another QEMU that answers at the socket while the record's QEMU lives, whatever it does",
  async (t) => {
    for (const [kind, status] of [
      ["waiting", "running"],
      ["running", "paused"],
      ["refused", "paused"],
    ] as const) {
      const elsewhere = await FakeQemu.start(t, { status: "paused" });
      const { qemu, view, written } = await startAgain(t, { kind, status, qemu: elsewhere.process });
      const told = /Process \d+ answers at .*, not process \d+/;
      const isTold = (): true | undefined => (told.test(view().error?.message ?? "") ? true : undefined);
      await eventually(isTold, { ...WITHIN, what: "the operator to be told" });
      t.same([...qemu.said, ...elsewhere.said, ...written], [], kind);
    }
  },
);

t.test("a guest that has arrived is listed, and nothing is done for it", async (t) => {
  const { qemu, view, written } = await startAgain(t, { kind: "arrived", status: "running" });
  t.match(view(), { id: ID, guest: "web", source: "alpha:7411", status: "moved" });
  t.same([...qemu.said, ...written], []);
});

t.test("a file that is no record is listed as in doubt", async (t) => {
  const { agent, journal } = await startAgain(t, { kind: "arrived", status: "running" });
  writeFileSync(join(journal.directory, "torn.json"), "{");
  await journal.list();
  t.match(agent.desk.listMigrations().at(-1), {
    id: "torn.json",
    status: "inDoubt",
    error: { code: "state-directory" },
  });
});
