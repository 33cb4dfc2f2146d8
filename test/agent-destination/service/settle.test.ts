/** Tests what a destination answers to each question of its source, and what it does for the question. */
import t from "tap";
import { DECIDES_WITHIN_MS } from "../../../shared/protocol/stream-messages.ts";
import { eventually } from "../../support/bounded.ts";
import { startAgain, startMoving } from "../../support/destination-again.ts";

const WITHIN = { timeoutMs: 10_000 };

t.test("a grant starts the guest, after the record that says so", async (t) => {
  const { qemu, settle, written, untilWritten } = await startAgain(t, { kind: "waiting", status: "paused" });
  qemu.whim = ({ execute }) => {
    if (execute === "cont") t.same(written, ["running"]);
    return undefined;
  };
  t.match(await settle("grant"), { standing: "running", running: { epoch: 1 } });
  t.ok(qemu.said.includes("cont"));
  await untilWritten({ kind: "arrived" });
  t.match(await settle("grant"), { standing: "running", running: { epoch: 1 } }, "the answer is repeated");
  t.match(await settle("withdraw"), { standing: "running" }, "a withdrawal that comes late changes nothing");
});

t.test("a guest that is granted paused is not started", async (t) => {
  const { qemu, settle, untilWritten } = await startAgain(t, { kind: "waiting", status: "paused" });
  t.match(await settle("grant", { paused: true }), { standing: "running", running: { resumedAtUs: 0 } });
  t.notOk(qemu.said.includes("cont"));
  t.match(await untilWritten({ kind: "arrived" }), { grant: { paused: true } });
});

t.test("the question how the migration stands changes nothing", async (t) => {
  const { qemu, settle, written } = await startAgain(t, { kind: "waiting", status: "paused" });
  t.equal((await settle("standing")).standing, "waiting");
  t.same([...qemu.said, ...written], []);
});

t.test("a withdrawal ends the copy, after the record that says so", async (t) => {
  const { qemu, settle, untilWritten } = await startAgain(t, { kind: "waiting", status: "paused" });
  t.match(await settle("withdraw"), { standing: "refused" });
  await untilWritten({ kind: "refused", heard: true });
  await eventually(() => (qemu.isAlive ? undefined : true), { ...WITHIN, what: "the end of the copy" });
  t.match(await settle("grant"), { standing: "refused" }, "the copy is refused for good");
  t.notOk(qemu.said.includes("cont"));
});

t.test("a grant that the disk does not take is refused, and a mark in QEMU makes the refusal durable", async (t) => {
  const { qemu, settle, failWrites, record } = await startAgain(t, { kind: "waiting", status: "paused" });
  failWrites(true);
  t.match(await settle("grant"), { standing: "refused", reason: /ENOSPC/ });
  t.same(qemu.said, ["object-add"]);
  t.match(await record(), { kind: "waiting" });
  t.equal((await settle("grant")).standing, "refused");
  t.equal((await settle("withdraw")).standing, "refused");
  await eventually(() => (qemu.isAlive ? undefined : true), { ...WITHIN, what: "the end of the copy" });
});

t.test("a refusal that nothing makes durable is not said", async (t) => {
  const { clock, qemu, settle, failWrites, untilWritten } = await startMoving(t, { kind: "waiting", status: "paused" });
  failWrites(true);
  qemu.whim = ({ execute }) => (execute === "object-add" ? "it takes no objects" : undefined);
  const asked = settle("withdraw");
  await eventually(() => qemu.said.includes("object-add") || undefined, { ...WITHIN, what: "the try" });
  clock.jump(DECIDES_WITHIN_MS);
  t.equal((await asked).standing, "waiting");
  t.ok(qemu.isAlive);
  failWrites(false);
  await untilWritten({ kind: "refused" });
});

t.test("a guest that somebody else starts is never refused", async (t) => {
  const { qemu, settle, untilWritten } = await startAgain(t, { kind: "waiting", status: "paused" });
  qemu.become("running");
  await untilWritten({ kind: "arrived" });
  t.equal((await settle("withdraw")).standing, "running");
  t.same(qemu.said, []);
});

t.test("a refused copy that somebody starts is reported as running, and is not ended", async (t) => {
  const { qemu, settle, until } = await startAgain(t, { kind: "refused", status: "paused" });
  qemu.become("running");
  await until("doubled");
  t.equal((await settle("withdraw")).standing, "running");
  t.ok(qemu.isAlive);
  t.same(qemu.said, []);
});

t.test("to a source that has kept its guest, the destination gives up a guest that has ended here", async (t) => {
  for (const kind of ["arrived", "running"] as const) {
    const { settle, record } = await startAgain(t, { kind, status: "gone" });
    t.equal((await settle("withdraw")).standing, "lost", "nothing is given up before the source's journal says so");
    t.match(await record(), { kind });
    t.match(await settle("kept"), { standing: "refused", reason: /the source has kept the guest/ });
    t.match(await record(), { kind: "refused", heard: true });
  }
});

t.test("when the disk does not take the record, the source has to say again that it keeps the guest", async (t) => {
  const { settle, failWrites } = await startAgain(t, { kind: "arrived", status: "gone" });
  failWrites(true);
  t.equal((await settle("kept")).standing, "waiting");
  failWrites(false);
  t.equal((await settle("kept")).standing, "refused");
});

t.test("a guest that lives here is given up to no source", async (t) => {
  const { settle, record } = await startAgain(t, { kind: "arrived", status: "running" });
  t.equal((await settle("kept")).standing, "running");
  t.match(await record(), { kind: "arrived" });
});

t.test("an arrived guest whose QEMU is gone is reported as lost to a source that has a copy", async (t) => {
  const { settle } = await startAgain(t, { kind: "arrived", status: "gone" });
  t.match(await settle("grant"), { standing: "lost", reason: /has ended since or has moved on/ });
});

t.test("a QEMU does not count as ended while it cannot be told whether it lives", async (t) => {
  const qemu = { pid: 1, identity: "of another kind" };
  const { settle, record } = await startAgain(t, { kind: "arrived", status: "running", qemu });
  t.match(await settle("kept"), { standing: "starting", reason: /does not tell/ });
  t.match(await record(), { kind: "arrived" });
});

t.test("a caller that lacks the token, or names another migration, learns nothing", async (t) => {
  for (const kind of ["waiting", "arrived"] as const) {
    const { settle, qemu, written } = await startAgain(t, { kind, status: "paused" });
    for (const more of [{ token: Buffer.alloc(16) }, { token: Buffer.alloc(0) }, { migrationId: "ba9876543210" }])
      for (const ask of ["standing", "grant", "withdraw"] as const)
        t.equal((await settle(ask, more)).standing, "unknown", `${kind}, ${ask}`);
    t.same([...qemu.said, ...written], []);
  }
  const { settle } = await startAgain(t, { kind: "waiting", status: "paused" });
  t.equal(
    (await settle("grant", { epoch: 2 })).standing,
    "unknown",
    "a caller that names another grant learns nothing either",
  );
});

t.test(
  "an agent that stops while it is asked does not spin: what is undecided is left to the next agent",
  async (t) => {
    const { agent, settle } = await startAgain(t, { kind: "waiting", status: "paused", isMute: true });
    const asked = settle("withdraw");
    await agent.stop();
    t.equal((await asked).standing, "waiting");
    // an agent that spins lets no further turn of the event loop come
    for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
  },
);
