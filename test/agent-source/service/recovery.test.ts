/** Tests a source agent that starts again, with each record that it may find, and whatever QEMU may be doing. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { eventually } from "../../support/bounded.ts";
import { FakeQemu } from "../../support/fake-qemu.ts";
import { EARLIER, ID, startAgain } from "../../support/source-again.ts";

const RUNS = "the guest runs at the source";
const RESTORED = ["migrate-set-capabilities", "migrate-set-parameters"];

t.test("a guest that was not granted runs on, its QEMU's settings are put back, the destination is told", async (t) => {
  const { end, qemu, record, destination } = await startAgain(t, { kind: "plan", qemu: "running" });
  t.match(await end(), { status: "failed", error: { code: "interrupted", guestNow: RUNS } });
  t.same(qemu.said, RESTORED, "the guest is not resumed a second time");
  t.match(await record(), { kind: "kept", reason: { code: "interrupted" } });
  t.notOk((await record())?.untold, "a destination without the whole guest gives up by itself");
  await destination.untilAsked(1);
  t.match(destination.calls[0], { ask: "withdraw" });
});

t.test("a QEMU that the agent was about to retire is started again, and the destination is told", async (t) => {
  const found = await startAgain(t, { kind: "plan", retiring: true, qemu: "postmigrate" });
  t.match(await found.end(), { status: "failed", error: { guestNow: RUNS } });
  t.equal(found.qemu.said[0], "cont");
  const isTold = async (): Promise<true | undefined> => ((await found.record())?.untold ? undefined : true);
  t.ok(await eventually(isTold, { timeoutMs: 15_000, what: "the word that the guest was kept" }));
  t.match(found.destination.calls[0], { ask: "withdraw" });
});

t.test("a QEMU that somebody else has retired is left alone", async (t) => {
  const found = await startAgain(t, { kind: "plan", qemu: "postmigrate" });
  t.match(await found.end(), { status: "failed", error: { guestNow: /which this agent did not bring about/ } });
  t.same(found.qemu.said, RESTORED);
});

t.test("a guest whose QEMU has ended is reported as gone, and one that was paused is left paused", async (t) => {
  const gone = await startAgain(t, { kind: "plan", qemu: "gone" });
  t.match(await gone.end(), { status: "failed", error: { guestNow: /is gone: its QEMU at the source has ended/ } });
  const paused = await startAgain(t, { kind: "plan", qemu: "paused" });
  t.match(await paused.end(), { status: "failed", error: { guestNow: /says that it is paused/ } });
  t.notOk(paused.qemu.said.includes("cont"), "somebody paused the guest for a reason");
});

t.test(
  "a QEMU that ended when it was being retired leaves the destination alone, whose copy may be the only one",
  async (t) => {
    const found = await startAgain(t, { kind: "plan", retiring: true, qemu: "gone", answers: ["waiting"] });
    const view = await found.until("inDoubt");
    t.match(view.error, { code: "in-doubt", guestNow: /runs nowhere/, advice: /resolve .* --keep destination/ });
    await found.destination.untilAsked(2);
    t.same([...new Set(found.destination.asked)], ["standing"], "the destination is told nothing");
    found.destination.answersInTurn(["running"]);
    t.match(await found.end(), { status: "moved" });
    t.match(await found.record(), { kind: "released" });
  },
);

t.test("a granted guest is settled only by the destination's word, one way or the other", async (t) => {
  const moved = await startAgain(t, { kind: "granted", qemu: "postmigrate", answers: ["starting", "running"] });
  t.equal(moved.view().status, "inDoubt");
  t.match(await moved.end(), { status: "moved" });
  t.same(moved.destination.asked, ["grant", "grant"]);
  t.same(moved.qemu.said, ["quit"]);
  t.match(await moved.record(), { kind: "released" });
  const refused = await startAgain(t, { kind: "granted", qemu: "postmigrate", answers: ["refused"] });
  t.match(await refused.end(), { status: "failed", error: { guestNow: RUNS } });
  t.equal(refused.qemu.said[0], "cont");
  t.same(refused.written.slice(0, 1), ["plan"], "`granted` is overwritten before the guest is started");
});

t.test("a granted guest whose QEMU has ended is granted again, since the destination has all of it", async (t) => {
  const found = await startAgain(t, { kind: "granted", qemu: "gone", answers: ["starting", "running"] });
  t.match(await found.end(), { status: "moved" });
  t.same(found.destination.asked, ["grant", "grant"]);
});

t.test("a granted guest that somebody has started here is withdrawn, and never granted again", async (t) => {
  const found = await startAgain(t, { kind: "granted", qemu: "running", answers: ["unknown", "waiting", "refused"] });
  t.match(await found.end(), { status: "failed", error: { guestNow: RUNS } });
  // the word that the guest was kept is said after the end
  t.same(
    [...new Set(found.destination.asked)].filter((ask) => ask !== "kept"),
    ["withdraw"],
  );
  t.same(found.qemu.said, RESTORED, "the guest is not started a second time");
});

t.test("a granted guest that runs at both hosts is reported, and no copy is ended without a word", async (t) => {
  const found = await startAgain(t, { kind: "granted", qemu: "running", answers: ["running"] });
  const view = await found.until("doubled");
  t.match(view.error, { code: "two-copies", guestNow: /both hosts/, advice: /stop/ });
  t.same(found.qemu.said, []);
  t.match(await found.record(), { kind: "granted" }, "an agent that starts again comes back to this");
  await t.rejects(found.agent.cancel(ID), { code: "too-late" });
  await t.rejects(found.agent.resolve({ id: ID, keep: "source", confirmed: true }), { code: "not-resolvable" });
  found.destination.answersInTurn(["lost"]);
  t.match(await found.end(), { status: "failed", error: { code: "two-copies", guestNow: RUNS } });
});

t.test("a granted guest that runs here in another QEMU is withdrawn, and nothing is said to that QEMU", async (t) => {
  const found = await startAgain(t, { kind: "granted", qemu: "postmigrate", answers: ["waiting"] });
  await found.destination.untilAsked(1);
  await found.qemu.end();
  const other = await FakeQemu.start(t, { status: "running" }, found.qemu.path);
  const withdrawn = (): true | undefined => (found.destination.asked.includes("withdraw") ? true : undefined);
  await eventually(withdrawn, { timeoutMs: 15_000, what: "the withdrawal" });
  t.same([...found.qemu.said, ...other.said], []);
  found.destination.answersInTurn(["refused"]);
  t.match((await found.end()).error, { guestNow: /is gone.*another QEMU of the guest.* runs here/ });
  t.same(other.said, []);
});

t.test("with a record that names no process, no QEMU is told anything and no grant is repeated", async (t) => {
  const planned = await startAgain(t, { kind: "plan", qemu: "postmigrate", isNameless: true });
  t.match(await planned.end(), { status: "failed", error: { guestNow: /an older agent wrote the record/ } });
  t.same(planned.qemu.said, []);
  const granted = await startAgain(t, { kind: "granted", qemu: "postmigrate", isNameless: true, answers: ["waiting"] });
  await granted.destination.untilAsked(2);
  t.same([...new Set(granted.destination.asked)], ["standing"]);
  t.equal(granted.view().status, "inDoubt");
});

t.test("a guest that was paused is never started, whatever QEMU and the destination say", async (t) => {
  for (const [qemu, guestNow] of [
    ["paused", /paused as it was$/],
    ["prelaunch", /paused as it was$/],
    ["postmigrate", /paused as it was; its QEMU calls that postmigrate/],
  ] as const) {
    const found = await startAgain(t, { kind: "plan", retiring: true, qemu, paused: true });
    t.match(await found.end(), { status: "failed", error: { guestNow } });
    t.same(found.qemu.said, RESTORED, qemu);
  }
  const answers = ["refused"] as const;
  const refused = await startAgain(t, { kind: "granted", qemu: "postmigrate", answers, paused: true });
  t.match(await refused.end(), { status: "failed", error: { guestNow: /calls that postmigrate, and cont starts it/ } });
  t.notOk(refused.qemu.said.includes("cont"));
  t.match(refused.destination.calls[0], { ask: "grant", paused: true }, "the guest is granted as paused");
  const resumed = await startAgain(t, { kind: "plan", qemu: "running", paused: true });
  t.match(await resumed.end(), { error: { guestNow: RUNS } }, "somebody has resumed the guest");
});

t.test("a destination that cannot tell leaves the guest in doubt, until the operator's confirmed word", async (t) => {
  const { agent, qemu, end } = await startAgain(t, { kind: "granted", qemu: "postmigrate", answers: ["lost"] });
  const call = { id: ID, keep: "source", confirmed: false } as const;
  await t.rejects(agent.resolve(call), { code: "needs-confirmation" });
  t.equal(agent.getMigration(ID).status, "inDoubt");
  t.match(agent.getMigration(ID).error, { code: "in-doubt", guestNow: /paused at the source/ });
  await t.rejects(agent.cancel(ID), { code: "too-late" });
  t.same(qemu.said, [], "QEMU is left alone");
  t.match(await agent.resolve({ ...call, confirmed: true }), { status: "failed" });
  t.match(await end(), { error: { guestNow: RUNS } });
  await t.rejects(agent.resolve({ ...call, confirmed: true }), { code: "not-in-doubt" }, "a second word is refused");
});

t.test("a `plan` that a full disk left behind does not resume a guest that was granted since", async (t) => {
  const found = await startAgain(t, { kind: "granted", qemu: "postmigrate", earlier: {}, answers: ["unknown"] });
  t.match(found.agent.getMigration(EARLIER), { status: "failed" });
  t.equal(found.view().status, "inDoubt");
  t.same(found.qemu.said, [], "QEMU is left alone");
  t.match(await found.record(EARLIER), { kind: "kept" });
});

t.test("a granted record is never passed over, whatever record is newer", async (t) => {
  const earlier = { kind: "granted" } as const;
  const found = await startAgain(t, { kind: "kept", qemu: "postmigrate", earlier, answers: ["unknown"] });
  t.equal(found.agent.getMigration(EARLIER).status, "inDoubt");
  t.match(await found.record(EARLIER), { kind: "granted" });
});

t.test("a migration that has ended is listed, and nothing is done for it", async (t) => {
  const kept = await startAgain(t, { kind: "kept", qemu: "postmigrate" });
  const released = await startAgain(t, { kind: "released", qemu: "gone" });
  t.match(kept.agent.listMigrations(), [{ id: ID, guest: "web", status: "failed" }]);
  t.match(released.agent.listMigrations(), [{ id: ID, guest: "web", status: "moved" }]);
  t.same([...kept.qemu.said, ...kept.destination.asked, ...released.destination.asked], []);
});

t.test("a QEMU that a released migration left behind is ended", async (t) => {
  const { qemu, end, destination } = await startAgain(t, { kind: "released", qemu: "postmigrate" });
  t.match(await end(), { status: "moved" });
  t.same(qemu.said, ["quit"]);
  t.notOk(qemu.isAlive);
  t.same(destination.asked, []);
});

t.test("a QEMU that post-copy left paused is ended after the agent was killed as it wrote `released`", async (t) => {
  const { qemu, end } = await startAgain(t, { kind: "released", qemu: "paused", postcopy: POSTCOPY });
  t.match(await end(), { status: "moved" });
  t.same(qemu.said, ["quit"]);
  t.notOk(qemu.isAlive);
});

t.test("a released QEMU that somebody has started is not ended: the guest is doubled", async (t) => {
  const { qemu, until } = await startAgain(t, { kind: "released", qemu: "running", answers: ["running"] });
  t.match((await until("doubled")).error, { code: "two-copies" });
  t.same(qemu.said, []);
});

t.test("a withdrawal that was not heard is repeated as `kept` until it is heard, and that is noted", async (t) => {
  const reason = { code: "cancelled", message: "by the operator" };
  const answers = ["waiting", "refused"] as const;
  const found = await startAgain(t, { kind: "kept", untold: true, qemu: "running", reason, answers });
  t.equal(found.view().status, "cancelled", "an operator who waits for the end need not wait for the destination");
  await found.destination.untilAsked(2);
  t.match(found.destination.calls, [{ ask: "kept" }, { ask: "kept" }]);
  t.match(await found.untilWritten(({ untold }) => untold === undefined, "that it was heard"), {
    kind: "kept",
    reason,
  });
  t.same(found.qemu.said, []);
});

t.test("a guest that has lost pages in post-copy is reported so, and no other host or QEMU is asked", async (t) => {
  const reason = { code: "pages-lost", message: "Pages of the guest were lost in post-copy" };
  const { view, destination, qemu } = await startAgain(t, { kind: "released", qemu: "gone", reason });
  t.match(view(), { status: "failed", error: { code: "pages-lost", guestNow: /misses pages/ } });
  t.same([...qemu.said, ...destination.asked], []);
});

const POSTCOPY = {
  ...{ ramSectionId: 2, blocks: [{ name: "pc.ram", byteLength: 4096 }] },
  ...{ frameBytes: 65536, creditWindowBytes: 1 << 20, codecs: [] },
};

t.test("a guest that has lost pages may be given back to this host, to be started again", async (t) => {
  const reason = { code: "pages-lost", message: "Pages of the guest were lost in post-copy" };
  const { agent, record, view } = await startAgain(t, { kind: "released", qemu: "gone", reason });
  const word = { id: ID, keep: "source", confirmed: false } as const;
  await t.rejects(agent.resolve(word), { code: "needs-confirmation", message: /may still have/ });
  t.match(await record(), { kind: "released" });
  await agent.resolve({ ...word, confirmed: true });
  t.match(await record(), { kind: "kept", reason });
  t.match(view(), { status: "failed", error: { code: "pages-lost", guestNow: /may be started anew on this host/ } });
  await t.rejects(agent.resolve({ ...word, keep: "destination" }), { code: "not-in-doubt" });
});

t.test("a granted post-copy is withdrawn when the QEMU here has ended, since the guest misses pages", async (t) => {
  const answers = ["waiting", "refused"] as const;
  const found = await startAgain(t, { kind: "granted", qemu: "gone", postcopy: POSTCOPY, answers });
  t.match(await found.end(), { status: "failed", error: { guestNow: /is gone/ } });
  t.match(found.destination.asked.slice(0, 2), ["withdraw", "withdraw"]);
});

t.test("a post-copy that QEMU completed as precopy is whole at the destination, and granted again", async (t) => {
  const postcopy = { ...POSTCOPY, complete: true } as const;
  const found = await startAgain(t, { kind: "granted", qemu: "gone", postcopy, answers: ["waiting", "running"] });
  t.match(await found.end(), { status: "moved" });
  t.same(found.destination.asked.slice(0, 2), ["grant", "grant"]);
});

t.test(
  "a note that post-copy begins does not show whether the destination misses pages: it is only asked",
  async (t) => {
    const plan = { kind: "plan", retiring: true, qemu: "gone", postcopy: POSTCOPY, answers: ["waiting"] } as const;
    const found = await startAgain(t, plan);
    await found.until("inDoubt");
    await found.destination.untilAsked(2);
    t.same([...new Set(found.destination.asked)], ["standing"]);
  },
);

t.test("a file that is no record is listed as in doubt, since its guest is not known", async (t) => {
  const { agent, journal } = await startAgain(t, { kind: "kept", qemu: "running" });
  writeFileSync(join(journal.directory, "torn.json"), "{");
  await journal.list();
  const error = { code: "state-directory", guestNow: /nobody knows/, advice: /^Find out where the guest runs/ };
  t.match(agent.listMigrations().at(-1), { id: "torn.json", guest: "unknown", status: "inDoubt", error });
});
