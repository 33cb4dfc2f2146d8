/**
 * Tests how an agent that starts again finds the QEMU of a record, and what the record allows it to do. Each record
 * with each state of QEMU is tested through the agent (test/agent-destination/service/recovery.test.ts).
 */
import { existsSync, writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import { adopt } from "../../../../agent-destination/migration/phases/adopt.ts";
import { incomingPath } from "../../../../agent-destination/migration/phases/stage.ts";
import type { DestinationRecord } from "../../../../shared/protocol/ownership.ts";
import { bounded, eventually } from "../../../support/bounded.ts";
import { type Came, destinationPhase, GRANT, ID } from "../../../support/destination-cx.ts";

/** Lets a migration be taken up from a record. The agent of an earlier life has no connection to QEMU any more. */
async function adopting(
  t: Test,
  more: Partial<DestinationRecord>,
  came: Came & { readonly isNameless?: boolean } = {},
) {
  const phase = await destinationPhase(t, came);
  const { cx, guest, write } = phase;
  await write(more.kind ?? "waiting", more);
  guest.letGoAgain();
  const record = await cx.journal.read(ID);
  if (record === undefined) throw new Error("it was written");
  const { qemu: _, ...nameless } = record;
  if (came.isNameless === true) await cx.journal.write(ID, nameless);
  phase.steps.length = 0;
  const state = { kind: "adopting", record: came.isNameless === true ? nameless : record } as const;
  const adopted = async () => {
    const next = await bounded(adopt(state, cx), 30_000, "the migration to be taken up");
    if ("guest" in next) t.teardown(() => next.guest.letGo());
    return next;
  };
  return { ...phase, adopted };
}

/** Arguments that no other process on this host has. */
const words = (t: Test): readonly string[] => ["-name", `${process.pid} ${t.name}`];

t.test("a QEMU that was started and not yet written down is found by its command line, and refused", async (t) => {
  const came = { isNameless: true, words: words(t), status: "inmigrate", migration: "none" };
  const { adopted, qemu, steps } = await adopting(t, {}, came);
  const next = await adopted();
  t.match(next, { kind: "refusing", isWhole: false, mayBeRunning: false, undo: { guest: { process: qemu.process } } });
  t.match(next, { fault: { code: "interrupted", message: /ended during the migration, and started again/ } });
  t.same(steps, [], "the refusal comes first, and then the end of QEMU");
});

t.test("a guest that has arrived still has such a command line, and is left alone", async (t) => {
  for (const status of ["running", "paused"]) {
    const came = { isNameless: true, words: [...words(t), status], status, migration: "completed" };
    const { adopted, qemu, steps } = await adopting(t, {}, came);
    t.match(await adopted(), { kind: "refusing", undo: {} }, status);
    t.equal(qemu.clients, 0);
    t.ok(qemu.isAlive);
    t.same(steps, []);
  }
});

t.test("a QEMU that another record names is not taken for one that was never written down", async (t) => {
  const came = { isNameless: true, words: words(t), status: "inmigrate", migration: "none" };
  const { adopted, cx, guest } = await adopting(t, {}, came);
  const record = await cx.journal.read(ID);
  if (record === undefined) throw new Error("it was written");
  await cx.journal.write("ba9876543210", { ...record, guest: "other", qemu: guest.process });
  t.same((await adopted()) as object, { ...(await adopted()), undo: {} });
});

t.test("a guest that was granted waits no more, and is started as it was granted", async (t) => {
  const { adopted, guest } = await adopting(t, { kind: "running" });
  t.match(await adopted(), { kind: "starting", grant: GRANT, guest: { process: guest.process } });
  for (const noted of [{ ran: true }, { ungranted: true }, { grant: { ...GRANT, paused: true } }] as const) {
    const paused = await adopting(t, { kind: "running", ...noted }, { migration: "postcopy-active" });
    t.match(await paused.adopted(), { kind: "starting", grant: { paused: true } }, "no cont is said to this guest");
  }
});

t.test("the sockets of a QEMU that has ended are removed, and its migration is lost if it was started", async (t) => {
  const { adopted, qemu, cx, record } = await adopting(t, { kind: "running" });
  await qemu.end();
  writeFileSync(incomingPath(cx), "");
  t.same(await adopted(), { kind: "lost" });
  t.notOk(existsSync(incomingPath(cx)));
  t.match(await record(), { kind: "running" }, "only an operator knows what became of it");
});

t.test("a guest that somebody has started without a grant is written down so", async (t) => {
  const { adopted, record, steps } = await adopting(t, { kind: "waiting" }, { status: "running" });
  t.same(await adopted(), { kind: "arrived" });
  t.match(await record(), { kind: "arrived", ungranted: true });
  t.same(steps, ["journal: arrived"]);
});

t.test(
  "while QEMU does not tell what it does, the operator is told, and the monitor is free for another try",
  async (t) => {
    const { adopted, qemu, told, steps } = await adopting(t, { kind: "waiting" });
    qemu.whim = ({ execute }) => (execute === "query-status" ? "it does not say" : undefined);
    await t.rejects(adopted(), { code: "qmp-command", message: /it does not say/ });
    t.match(told.news, [/its QEMU cannot be looked at yet: .*it does not say/]);
    t.same(steps, []);
    await eventually(() => (qemu.clients === 0 ? true : undefined), { timeoutMs: 20_000, what: "a free monitor" });
    qemu.whim = () => undefined;
    t.match(await adopted(), { kind: "loaded" });
  },
);
