/**
 * Tests the times of the operators' service at a destination: when a source counts as silent, how long a word waits for
 * its effect, and how often an observer looks. The agent's clock moves along with real time, since its QEMU is a
 * process with a socket; what would take long is jumped over.
 */
import t from "tap";
import { bounded, eventually } from "../../support/bounded.ts";
import { ID, POSTCOPY, startMoving } from "../../support/destination-again.ts";

const WITHIN_MS = 20_000;
const BACK = { id: ID, keep: "source", confirmed: true } as const;
/** How long after its last call a source counts as in contact, and how long a QEMU may not answer, milliseconds. */
const SILENT_AFTER_MS = 10_000;

t.test("a source counts as in contact for ten seconds after each call that counts", async (t) => {
  const came = { kind: "running", status: "running", migration: "postcopy-paused", postcopy: POSTCOPY } as const;
  const { agent, clock, view, until, settle } = await startMoving(t, came);
  await until("inDoubt");
  for (let call = 1; call <= 3; call++) {
    t.equal((await settle("standing")).standing, "pulling");
    clock.jump(SILENT_AFTER_MS / 2);
    t.not(view().status, "inDoubt", `half of the time after call ${call}`);
    await t.rejects(agent.desk.resolve(BACK), { code: "not-resolvable", message: /is in contact/ });
  }
  clock.jump(SILENT_AFTER_MS);
  t.equal(view().status, "inDoubt");
});

t.test("a word whose effect takes more than 20 s is answered with the view of that moment", async (t) => {
  const { agent, qemu, clock, failWrites, written } = await startMoving(t, { kind: "waiting", status: "paused" });
  // neither the disk nor QEMU takes the refusal, so the copy cannot be ended
  failWrites(true);
  qemu.whim = ({ execute }) => (execute === "object-add" ? "it takes no objects" : undefined);
  let isAnswered = false;
  const answered = agent.desk.resolve(BACK).finally(() => {
    isAnswered = true;
  });
  await eventually(() => qemu.said.includes("object-add") || undefined, { timeoutMs: WITHIN_MS, what: "the try" });
  clock.jump(15_000);
  await clock.advance(1);
  t.equal(isAnswered, false);
  clock.jump(5000);
  const view = await bounded(answered, WITHIN_MS, "the answer");
  t.match(view, { id: ID, status: /^(?!cancelled|failed|moved)/ });
  t.ok(qemu.isAlive);
  t.same(written, []);
});

t.test(
  "an observer is told of a change within 200 ms, of no view twice, and of nothing once it has left",
  async (t) => {
    const { agent, clock, settle, untilWritten } = await startMoving(t, { kind: "waiting", status: "paused" });
    const [stays, leaves]: [string[], string[]] = [[], []];
    const stop = [
      agent.desk.watch(ID, ({ status }) => void stays.push(status)),
      agent.desk.watch(ID, ({ status }) => void leaves.push(status)),
    ];
    t.teardown(stop[0] ?? (() => undefined));
    t.same([stays, leaves], [["inDoubt"], ["inDoubt"]], "the view of the beginning comes at once");
    await clock.advance(5000);
    t.same(stays, ["inDoubt"], "nothing has changed");
    stop[1]?.();
    await settle("withdraw");
    await untilWritten({ kind: "refused", heard: true });
    await eventually(() => agent.desk.getMigration(ID).status === "failed" || undefined, {
      timeoutMs: WITHIN_MS,
      what: "the end",
    });
    await clock.advance(200);
    t.equal(stays.at(-1), "failed");
    t.equal(new Set(stays).size, stays.length);
    t.same(leaves, ["inDoubt"]);
  },
);

t.test("a QEMU that has answered no client for ten seconds may be ended by a word", async (t) => {
  const came = { kind: "waiting", status: "running", isMute: true } as const;
  const { agent, qemu, clock, view, jumpTo, untilWritten } = await startMoving(t, came);
  await t.rejects(agent.desk.resolve(BACK), { code: "not-in-doubt", message: /adopting/ });
  // the agent looks for half a second, and then the ten seconds begin
  await jumpTo("inDoubt");
  t.ok(clock.monotonicMs() >= SILENT_AFTER_MS + 500);
  t.match(view().error, { code: "qemu-failed", advice: /--keep source ends that QEMU/ });
  await agent.desk.resolve(BACK);
  t.notOk(qemu.isAlive);
  await untilWritten({ kind: "refused" });
});
