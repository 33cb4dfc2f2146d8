/** Tests the operator's words at a destination: which are taken where, which must be confirmed, and what they do. */
import t from "tap";
import { eventually } from "../../support/bounded.ts";
import { type Came, ID, type Moving, POSTCOPY, startAgain, startMoving } from "../../support/destination-again.ts";

const WITHIN = { timeoutMs: 10_000 };
const HERE = { id: ID, keep: "destination", confirmed: false } as const;
const BACK = { id: ID, keep: "source", confirmed: false } as const;
const YES = { confirmed: true } as const;

t.test("both words about a whole guest whose source is silent must be confirmed", async (t) => {
  for (const came of [{ kind: "waiting" }, { kind: "refused" }] as const) {
    const { agent, qemu, view, written } = await startAgain(t, { status: "paused", ...came });
    t.equal(view().status, "inDoubt");
    await t.rejects(agent.desk.resolve(HERE), { code: "needs-confirmation", message: /alpha:7411 may run the guest/ });
    await t.rejects(agent.desk.resolve(BACK), { code: "needs-confirmation", message: /may be the only one/ });
    t.same([...qemu.said, ...written], []);
  }
});

t.test("the word for the destination starts the guest, after the record that says so", async (t) => {
  for (const came of [{ kind: "waiting" }, { kind: "refused" }] as const) {
    const { agent, qemu, written, untilWritten } = await startAgain(t, { status: "paused", ...came });
    qemu.whim = ({ execute }) => {
      if (execute === "cont") t.same(written, ["running"]);
      return undefined;
    };
    t.match(await agent.desk.resolve({ ...HERE, ...YES }), { status: "moved" });
    t.ok(qemu.said.includes("cont"));
    await untilWritten({ kind: "arrived" });
    await t.rejects(agent.desk.resolve({ ...BACK, ...YES }), { code: "not-in-doubt" });
    t.ok(qemu.isAlive);
  }
});

t.test("a mark of the refusal is removed before the guest is started, and after the record", async (t) => {
  const came = { kind: "waiting", status: "paused", isMarked: true } as const;
  const { agent, qemu, written } = await startAgain(t, came);
  qemu.whim = ({ execute }) => {
    if (execute === "object-del") t.same(written, ["running"]);
    return undefined;
  };
  t.match(await agent.desk.resolve({ ...HERE, ...YES }), { status: "moved" });
  t.same(qemu.said.slice(0, 2), ["object-del", "cont"]);
});

t.test("the word for the source ends the copy for good", async (t) => {
  for (const came of [{ kind: "waiting" }, { kind: "refused" }] as const) {
    const { agent, qemu, untilWritten, settle } = await startAgain(t, { status: "paused", ...came });
    t.match(await agent.desk.resolve({ ...BACK, ...YES }), {
      status: came.kind === "waiting" ? "cancelled" : "failed",
    });
    await untilWritten({ kind: "refused", heard: true });
    t.notOk(qemu.isAlive);
    t.notOk(qemu.said.includes("cont"));
    t.equal((await settle("grant")).standing, "refused");
  }
});

t.test(
  "a source that only asks has lost its own QEMU or cannot see it, so the word is said here, with --yes",
  async (t) => {
    const { agent, settle, view } = await startAgain(t, { kind: "waiting", status: "paused" });
    await settle("standing");
    t.equal(view().status, "inDoubt", "a source that only asks leaves it to the operator");
    await settle("withdraw");
    t.equal(view().status, "granting");
    for (const word of [HERE, BACK, { ...HERE, ...YES }])
      await t.rejects(agent.desk.resolve(word), { code: "not-resolvable", advice: /ferry --agent alpha:7411/ });
  },
);

t.test("of two contrary words one is taken, and the other is answered that it was not", async (t) => {
  const { agent } = await startAgain(t, { kind: "waiting", status: "paused" });
  const words = [HERE, BACK].map((word) => agent.desk.resolve({ ...word, ...YES }));
  const [first, second] = await Promise.allSettled(words);
  t.match(first, { status: "fulfilled", value: { status: "moved" } });
  t.match(second, { status: "rejected", reason: { code: "not-in-doubt", message: /had no effect/ } });
});

t.test("a grant that comes after the word for the source is answered with a refusal", async (t) => {
  const { agent, settle, qemu } = await startAgain(t, { kind: "waiting", status: "paused" });
  const [, granted] = await Promise.all([agent.desk.resolve({ ...BACK, ...YES }), settle("grant")]);
  t.equal(granted.standing, "refused");
  t.notOk(qemu.said.includes("cont"));
});

t.test("a guest that QEMU refuses to start for a word is refused again, with QEMU's words", async (t) => {
  const { agent, qemu, written, record } = await startAgain(t, { kind: "refused", status: "paused" });
  qemu.whim = ({ execute }) => (execute === "cont" ? 'Failed to get "write" lock' : undefined);
  void agent.desk.resolve({ ...HERE, ...YES });
  await eventually(() => (written.length > 1 ? true : undefined), { ...WITHIN, what: "both records" });
  t.same(written, ["running", "refused"]);
  t.match(await record(), { reason: /"write" lock/ });
  t.ok(qemu.isAlive, "the copy is kept");
});

t.test("the word about a guest that was started and has ended says which host has it from now on", async (t) => {
  for (const [word, status, kind] of [
    [HERE, "moved", "arrived"],
    [BACK, "failed", "refused"],
  ] as const) {
    const { agent, view, record } = await startAgain(t, { kind: "running", status: "gone" });
    t.equal(view().status, "inDoubt");
    await t.rejects(agent.desk.resolve(word), { code: "needs-confirmation" });
    t.match(await record(), { kind: "running" });
    t.match(await agent.desk.resolve({ ...word, ...YES }), { status });
    t.match(await record(), { kind });
    await t.rejects(agent.desk.resolve({ ...word, ...YES }), { code: "not-in-doubt" });
  }
});

t.test("a guest that misses pages of a silent source is ended by one word, and given back by another", async (t) => {
  for (const came of [
    { status: "running", migration: "postcopy-paused" },
    { status: "paused", migration: "postcopy-active" },
  ] as const) {
    const found = await startAgain(t, { kind: "running", postcopy: POSTCOPY, ...came });
    const { agent, qemu, view, until, written, untilWritten, settle } = found;
    await until("inDoubt");
    t.match(view().error, { guestNow: /stands still at the first page/, advice: /--keep source ends it/ });
    await t.rejects(agent.desk.resolve({ ...HERE, ...YES }), { code: "not-resolvable", message: /misses pages/ });
    await t.rejects(agent.desk.resolve(BACK), { code: "needs-confirmation", message: /to end it loses/ });
    t.ok(qemu.isAlive);
    t.same(written, []);
    t.match(await agent.desk.resolve({ ...BACK, ...YES }), { status: "inDoubt", error: { message: /has ended/ } });
    t.notOk(qemu.isAlive);
    t.notOk(qemu.said.includes("cont"));
    t.equal((await settle("standing")).standing, "lost");
    t.match(await agent.desk.resolve({ ...BACK, ...YES }), { status: "failed" });
    await untilWritten({ kind: "refused", heard: true });
  }
});

t.test("a post-copy that was not started yet is not claimed, since its pages are at its source", async (t) => {
  const came = { kind: "waiting", status: "paused", migration: "postcopy-active", postcopy: POSTCOPY };
  const { agent, qemu, view, untilWritten } = await startAgain(t, { ...came, kind: "waiting" });
  t.match(view(), { status: "inDoubt", error: { guestNow: /without its pages/, advice: /--keep source ends/ } });
  await t.rejects(agent.desk.resolve({ ...HERE, ...YES }), { code: "not-resolvable", message: /misses pages/ });
  t.match(await agent.desk.resolve({ ...BACK, ...YES }), { status: "cancelled" });
  await untilWritten({ kind: "refused", heard: true });
  t.notOk(qemu.isAlive);
});

t.test("a source that asks while pages are missing is in contact, and keeps the word for itself", async (t) => {
  const came = { kind: "running", status: "running", migration: "postcopy-paused", postcopy: POSTCOPY } as const;
  const { agent, qemu, until, settle } = await startAgain(t, came);
  await until("inDoubt");
  t.equal((await settle("standing")).standing, "pulling");
  await t.rejects(agent.desk.resolve({ ...BACK, ...YES }), { code: "not-resolvable", message: /is in contact/ });
  t.ok(qemu.isAlive);
});

t.test("the copy of a withdrawn post-copy is not kept, since nobody could start it", async (t) => {
  const came = { kind: "waiting", status: "paused", migration: "postcopy-active", postcopy: POSTCOPY } as const;
  const { qemu, settle, untilWritten } = await startAgain(t, { ...came, saysKept: true });
  t.equal((await settle("withdraw")).standing, "refused");
  await untilWritten({ kind: "refused", heard: true });
  t.notOk(qemu.isAlive);
});

t.test("a migration that asks for no word takes none", async (t) => {
  for (const came of [
    { kind: "arrived", status: "running" },
    { kind: "refused", status: "running" },
    { kind: "waiting", status: "paused", isMute: true },
  ] as const) {
    const { agent, qemu } = await startAgain(t, came);
    for (const word of [HERE, BACK])
      await t.rejects(agent.desk.resolve({ ...word, ...YES }), { code: "not-in-doubt" }, came.kind);
    t.same(qemu.said, []);
  }
  const { agent } = await startAgain(t, { kind: "arrived", status: "running" });
  await t.rejects(agent.desk.resolve({ ...HERE, id: "ba9876543210" }), { code: "migration-unknown" });
});

t.test("a whole guest cannot be cancelled, and a cancel leaves a migration that has ended as it is", async (t) => {
  const whole = await startAgain(t, { kind: "waiting", status: "paused" });
  await t.rejects(whole.agent.desk.cancel(ID), { code: "too-late", advice: /resolve/ });
  const ended = await startAgain(t, { kind: "arrived", status: "running" });
  t.match(await ended.agent.desk.cancel(ID), { status: "moved" });
});

t.test("an observer sees each change once, until the end", async (t) => {
  const { agent, settle } = await startAgain(t, { kind: "waiting", status: "paused" });
  const seen: string[] = [];
  const stop = agent.desk.watch(ID, ({ status }) => void seen.push(status));
  t.teardown(stop);
  await settle("withdraw");
  await eventually(() => (seen.includes("failed") ? true : undefined), { ...WITHIN, what: "the end" });
  t.equal(seen[0], "inDoubt");
  t.throws(() => agent.desk.watch("ba9876543210", () => undefined), { code: "migration-unknown" });
});

t.test("an operator's word ends a QEMU that answers no client, also while the source is in contact", async (t) => {
  const each = async (came: Pick<Came, "kind" | "postcopy">): Promise<Moving> => {
    const found = await startMoving(t, { status: "running", isMute: true, ...came });
    const { agent, qemu, view, jumpTo, written, settle } = found;
    t.match(view(), { status: "granting" }, "the agent looks at the QEMU again first");
    await t.rejects(agent.desk.resolve({ ...BACK, ...YES }), { code: "not-in-doubt", message: /adopting/ });
    await jumpTo("inDoubt");
    t.match(view().error, { code: "qemu-failed", advice: /another client|other client.*--keep source ends that QEMU/ });
    t.equal((await settle("withdraw")).standing, came.kind === "running" ? "starting" : "waiting");
    await t.rejects(agent.desk.resolve({ ...HERE, ...YES }), {
      code: "not-resolvable",
      message: /cannot act on the word/,
    });
    await t.rejects(agent.desk.resolve(BACK), { code: "needs-confirmation", message: /may be the only one/ });
    t.ok(qemu.isAlive);
    t.same([...qemu.said, ...written], []);
    return found;
  };
  const [pulls, waits] = await Promise.all([each({ kind: "running", postcopy: POSTCOPY }), each({ kind: "waiting" })]);
  // the guest may have run here, so it takes another word to say whose the guest is
  t.match(await pulls.agent.desk.resolve({ ...BACK, ...YES }), { status: "inDoubt", error: { message: /has ended/ } });
  t.notOk(pulls.qemu.isAlive);
  t.equal((await pulls.settle("standing")).standing, "lost");
  t.match(await pulls.agent.desk.resolve({ ...BACK, ...YES }), { status: "failed" });
  await pulls.untilWritten({ kind: "refused", heard: true });
  // the guest has not run here, so the end of its QEMU is its refusal
  await waits.agent.desk.resolve({ ...BACK, ...YES });
  t.notOk(waits.qemu.isAlive);
  await waits.untilWritten({ kind: "refused" });
  t.equal((await waits.settle("grant")).standing, "refused");
});
