/**
 * Tests a guest that is here as a whole, paused: what its source is told, whose word counts, and to which state each
 * word leads. No `cont` is said in any of these tests, since only a later state says it.
 */
import t, { type Test } from "tap";
import { awaitGrant } from "../../../../agent-destination/migration/phases/await-grant.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { bounded, eventually } from "../../../support/bounded.ts";
import {
  destinationPhase,
  GRANT,
  LAST_BYTE_AT_US,
  LAST_SEQUENCE,
  POSTCOPY,
  type StreamOptions,
  TOKEN,
  WITHDRAWN,
} from "../../../support/destination-cx.ts";

const WITHIN = { timeoutMs: 15_000 };
const STOPPING = new MigrationFault("stopping", "The agent stops");

/** Lets a guest wait for its grant, with the record that the phases before have written. */
async function loaded(t: Test, stream: StreamOptions | "no stream" = {}) {
  const phase = await destinationPhase(t);
  const postcopy = stream !== "no stream" && stream.postcopy === true ? { postcopy: POSTCOPY } : {};
  await phase.write("waiting", postcopy);
  const link = stream === "no stream" ? undefined : phase.stream(stream);
  const { guest, cx } = phase;
  const state = {
    kind: "loaded",
    guest,
    ...(link && { receiver: link.receiver }),
    ...postcopy,
    loadedAtUs: 5,
  } as const;
  const waits = (isStarted = false) => bounded(awaitGrant({ ...state, isStarted }, cx), 15_000, "the word");
  return { ...phase, link, waits };
}

t.test("the source is told what was loaded and when, and from then on no cut of the link is too long", async (t) => {
  const { link, waits, signals } = await loaded(t);
  const done = waits();
  t.match(link?.said, [{ kind: "loaded", lastSequence: LAST_SEQUENCE, lastByteAtUs: LAST_BYTE_AT_US, loadedAtUs: 5 }]);
  t.equal(link?.link.patienceMs, Number.POSITIVE_INFINITY);
  signals.cancelled.abort(WITHDRAWN);
  t.notOk(link?.receiver.signal.aborted, "a cancel does not end the stream of a guest that is here as a whole");
  signals.withdrawn.abort(WITHDRAWN);
  await done;
});

t.test("a grant that comes by the stream leads to owning, and nothing is written or started before", async (t) => {
  const { link, waits, steps, qemu } = await loaded(t);
  const done = waits();
  link?.source.send({ kind: "grant", token: TOKEN, epoch: 1, paused: true });
  t.match(await done, { kind: "owning", grant: { ...GRANT, paused: true }, isMarked: false });
  t.same(steps, ["source: loaded"]);
  t.equal(qemu.state.status, "paused");
});

t.test("a grant that comes by a call counts as well, when the link is down or there is none", async (t) => {
  for (const stream of [{ isCut: true }, "no stream"] as const) {
    const { waits, cx } = await loaded(t, stream);
    const done = waits();
    cx.granted.resolve(GRANT);
    t.match(await done, { kind: "owning", grant: GRANT });
  }
});

t.test("a grant with another token or of another epoch counts for nothing", async (t) => {
  for (const wrong of [{ token: Buffer.alloc(16) }, { epoch: 2 }]) {
    const { link, waits, signals } = await loaded(t);
    const done = waits();
    link?.source.send({ kind: "grant", token: TOKEN, epoch: 1, paused: false, ...wrong });
    // the message behind it has come when its answer comes
    link?.source.send({ kind: "clockPing", nonce: 1 });
    const isRead = () => (link?.said.some(({ kind }) => kind === "clockReply") ? true : undefined);
    await eventually(isRead, { ...WITHIN, what: "the grant to be read" });
    signals.withdrawn.abort(WITHDRAWN);
    t.match(await done, { kind: "refusing" });
  }
});

t.test("a grant of a guest that the journal has as refused starts nothing", async (t) => {
  const { waits, cx, write } = await loaded(t);
  await write("refused", { reason: "its disk was full" });
  const done = waits();
  cx.granted.resolve(GRANT);
  await t.rejects(done, { code: "internal", message: "The journal does not let the guest be started here" });
});

t.test("a withdrawal leads to a refusal, by which a whole copy is kept and one that misses pages is not", async (t) => {
  for (const postcopy of [false, true]) {
    const { waits, signals, guest } = await loaded(t, { postcopy });
    const done = waits();
    signals.withdrawn.abort(WITHDRAWN);
    const end = await done;
    t.match(end, { kind: "refusing", fault: { code: "peer-failed", message: /withdrew/ }, mayBeRunning: false });
    t.match(end, { isWhole: !postcopy, undo: { guest } });
  }
});

t.test("a source that gives up by the stream has withdrawn, and the refusal has its words", async (t) => {
  const { waits, link } = await loaded(t);
  const done = waits();
  link?.source.send({ kind: "failure", code: "cancelled", message: "no", refusedToken: new Uint8Array() });
  const fault = { code: "peer-failed", message: "The source gave up: no" };
  t.match(await done, { kind: "refusing", isWhole: true, fault });
});

t.test("the end of QEMU leads to a refusal without a copy, in QEMU's own words", async (t) => {
  const { waits, qemu } = await loaded(t);
  const done = waits();
  await qemu.end();
  t.match(await done, {
    kind: "refusing",
    isWhole: false,
    mayBeRunning: false,
    fault: { code: "qemu-failed", message: "The destination's QEMU ended: it said nothing" },
  });
});

t.test("an operator may start the guest without a word of its source", async (t) => {
  const { waits, say, steps } = await loaded(t, "no stream");
  const done = waits();
  say("here");
  t.match(await done, { kind: "owning", grant: GRANT, isMarked: false });
  t.same(steps, []);
});

t.test("an operator may end the copy, which is then not kept for the source", async (t) => {
  const { waits, say } = await loaded(t, { isCut: true });
  const done = waits();
  say("end");
  t.match(await done, {
    kind: "refusing",
    isWhole: false,
    fault: { code: "cancelled", message: "The operator of this host ended the copy" },
  });
});

t.test(
  "a guest that somebody else starts has arrived without a grant, and its monitor is left to others",
  async (t) => {
    const { waits, qemu, record, told, guest } = await loaded(t);
    const done = waits();
    qemu.become("running");
    t.match(await done, { kind: "arrived" });
    t.match(await record(), { kind: "arrived", ungranted: true });
    t.equal(told.running.length, 1, "the source and operators see that it runs here");
    t.notOk(guest.qmp.isOpen);
    t.notOk(qemu.said.includes("cont"));
  },
);

t.test(
  "in post-copy the pages of a guest that somebody else has started are fetched, by the same stream",
  async (t) => {
    const { waits, link, record, guest } = await loaded(t, { postcopy: true });
    const end = await waits(true);
    t.match(end, { kind: "pulling", guest, postcopy: POSTCOPY });
    t.ok("receiver" in end && end.receiver === link?.receiver);
    t.match(await record(), { kind: "running", ungranted: true, postcopy: POSTCOPY });
    t.ok(guest.qmp.isOpen);
  },
);

t.test("a guest that somebody starts while no monitor is connected is noticed once there is one again", async (t) => {
  const { waits, guest, qemu, record } = await loaded(t);
  const done = waits();
  guest.qmp.close();
  const isAlone = () => (qemu.clients === 0 ? true : undefined);
  await eventually(isAlone, { ...WITHIN, what: "a QEMU without a client" });
  qemu.become("running");
  await guest.monitor();
  t.match(await done, { kind: "arrived" });
  t.match(await record(), { kind: "arrived", ungranted: true });
});

t.test("an agent that stops gives the guest back to a source that is in contact", async (t) => {
  const { waits, signals } = await loaded(t, { isCut: false });
  const done = waits();
  signals.stopping.abort(STOPPING);
  t.match(await done, { kind: "refusing", isWhole: true, fault: { code: "stopping" } });
});

t.test("an agent that stops leaves the copy to the next agent when the source is not in contact", async (t) => {
  for (const stream of [{ isCut: true }, "no stream"] as const) {
    const { waits, signals, steps } = await loaded(t, stream);
    const done = waits();
    signals.stopping.abort(STOPPING);
    await t.rejects(done, { code: "stopping" });
    t.same(steps, stream === "no stream" ? [] : ["source: loaded"], "nothing is refused");
  }
});
