/**
 * Tests a refused guest whose whole copy is kept: what its source is told, whose word ends the copy, and who may start
 * it all the same.
 */
import t, { type Test } from "tap";
import { withhold } from "../../../../agent-destination/migration/phases/refuse.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { bounded } from "../../../support/bounded.ts";
import {
  type Came,
  destinationPhase,
  GRANT,
  refusedGrant,
  type StreamOptions,
} from "../../../support/destination-cx.ts";

const FAULT = new MigrationFault("qemu-failed", "The destination's QEMU did not start the guest");
const KEPT = new MigrationFault("peer-failed", "The guest stays at the source");
const STOPPING = new MigrationFault("stopping", "The agent stops");

interface Withheld extends Came {
  readonly stream?: StreamOptions | "no stream";
  readonly keepsLocks?: boolean;
}

/** Lets a copy be kept whose refusal the journal has. */
async function withheld(t: Test, { stream = {}, keepsLocks = false, ...came }: Withheld = {}) {
  const phase = await destinationPhase(t, came);
  const { guest, cx } = phase;
  await phase.write("refused", { reason: FAULT.message });
  guest.keepsLocks = keepsLocks;
  const link = stream === "no stream" ? undefined : phase.stream(stream);
  const undo = { guest, ...(link && { receiver: link.receiver }) };
  let isOver = false;
  const kept = () =>
    bounded(withhold({ kind: "withheld", fault: FAULT, undo }, cx), 20_000, "the end of the copy").finally(() => {
      isOver = true;
    });
  return { ...phase, link, kept, isOver: () => isOver };
}

/** Lets everything happen that a word has set off, by a question that QEMU answers. */
const settle = (phase: Awaited<ReturnType<typeof withheld>>) => phase.guest.qmp.execute("query-status");

t.test("the source is told of the refusal with the token of its grant, and the copy is not touched", async (t) => {
  const phase = await withheld(t);
  const done = phase.kept();
  t.match(phase.link?.said, [{ kind: "failure", code: "qemu-failed", message: FAULT.message }]);
  t.equal(refusedGrant(phase.link?.said[0]), GRANT.token);
  await settle(phase);
  t.notOk(phase.isOver());
  t.same(phase.steps, ["source: failure"]);
  phase.signals.unneeded.abort(KEPT);
  await done;
});

t.test("once the source has said that it keeps the guest, the record has it and the copy ends", async (t) => {
  const { kept, signals, record, guest } = await withheld(t);
  const done = kept();
  signals.unneeded.abort(KEPT);
  t.match(await done, { kind: "discarding", fault: FAULT, undo: { guest }, refused: true });
  t.match(await record(), { kind: "refused", heard: true, reason: FAULT.message });
});

t.test("a source that only withdraws may still lose its own copy, so this copy is kept", async (t) => {
  const { kept, signals, qemu } = await withheld(t);
  const done = kept();
  signals.withdrawn.abort(KEPT);
  qemu.become("running");
  t.match(await done, { kind: "doubled" }, "not the withdrawal has ended the wait");
});

t.test("a copy that keeps locks of the images ends by a withdrawal, since its source could not start", async (t) => {
  const { kept, signals, record } = await withheld(t, { keepsLocks: true });
  const done = kept();
  signals.withdrawn.abort(KEPT);
  t.match(await done, { kind: "discarding", refused: true });
  t.match(await record(), { heard: true });
});

t.test("a source of an earlier version, which never says `kept`, needs no copy once it gives up", async (t) => {
  const failure = { kind: "failure", code: "cancelled", message: "no", refusedToken: new Uint8Array() } as const;
  const earlier = await withheld(t, { saysKept: false });
  const done = earlier.kept();
  earlier.link?.source.send(failure);
  t.match(await done, { kind: "discarding", refused: true });
  const present = await withheld(t);
  const waits = present.kept();
  present.link?.source.send(failure);
  await present.link?.receiver.gaveUp.promise;
  present.qemu.become("running");
  t.match(await waits, { kind: "doubled" }, "a source of this version says `kept` as well");
});

t.test("a disk that does not take the last record does not keep the copy", async (t) => {
  const { kept, signals, failWrites } = await withheld(t);
  failWrites(true);
  const done = kept();
  signals.unneeded.abort(KEPT);
  t.match(await done, { kind: "discarding", refused: true });
});

t.test("the end of QEMU ends the wait", async (t) => {
  const { kept, qemu } = await withheld(t, { stream: "no stream" });
  const done = kept();
  await qemu.end();
  t.match(await done, { kind: "discarding", refused: true });
});

t.test("an operator may end the copy, and the record then keeps no agent from forgetting it", async (t) => {
  const { kept, say, record } = await withheld(t, { stream: "no stream" });
  const done = kept();
  say("end");
  t.match(await done, { kind: "discarding", refused: true });
  t.match(await record(), { kind: "refused", heard: true });
});

t.test("an operator may start the guest although it was refused, and a mark in QEMU is known then", async (t) => {
  for (const isMarked of [false, true]) {
    const { kept, say, qemu, record, guest } = await withheld(t, { stream: "no stream" });
    if (isMarked) qemu.objects.add("ferry-refused");
    const done = kept();
    say("here");
    t.match(await done, { kind: "owning", guest, grant: GRANT, isMarked });
    t.match(await record(), { kind: "refused" }, "nothing is started by this record");
    t.same(qemu.said, []);
  }
});

t.test("a refused guest that somebody starts is reported as doubled, and left alone", async (t) => {
  const { kept, qemu, guest, record } = await withheld(t);
  const done = kept();
  qemu.become("running");
  t.match(await done, {
    kind: "doubled",
    isWhole: true,
    fault: {
      code: "two-copies",
      message:
        "Somebody has started web here, although its migration from alpha:7411 was refused: it may run there too",
      guestNow: /runs here/,
      advice: /Pause this copy at once/,
    },
  });
  t.ok(qemu.isAlive);
  t.notOk(guest.qmp.isOpen);
  t.same(qemu.said, ["source: failure"]);
  t.match(await record(), { kind: "refused" });
});

t.test("an agent that stops waits for a source that is in contact until it leaves, and for no other", async (t) => {
  for (const [stream, signal] of [
    [{ isCut: false }, "leaving"],
    [{ isCut: true }, "stopping"],
    ["no stream", "stopping"],
  ] as const) {
    const phase = await withheld(t, { stream });
    const done = phase.kept();
    done.catch(() => undefined);
    phase.signals.stopping.abort(STOPPING);
    await settle(phase);
    t.equal(phase.isOver(), signal === "stopping");
    if (signal === "leaving") phase.signals.leaving.abort(STOPPING);
    await t.rejects(done, { code: "stopping" });
    t.match(await phase.record(), { kind: "refused", reason: FAULT.message }, "the next agent keeps the copy");
  }
});

t.test("an operator's word counts only while the copy is kept", async (t) => {
  const { kept, signals, say } = await withheld(t);
  const done = kept();
  signals.unneeded.abort(KEPT);
  await done;
  t.throws(() => say("here"), /no phase asks/);
});
