/** Tests the state *doubled*: it is reported for as long as it lasts, and neither agent ends a copy. */
import t, { type Test } from "tap";
import { double } from "../../../../agent-source/migration/phases/double.ts";
import type { Loaded } from "../../../../agent-source/migration/source-state.ts";
import { twoCopies } from "../../../../agent-source/migration/two-copies.ts";
import { eventually } from "../../../support/bounded.ts";
import { FakeQemu } from "../../../support/fake-qemu.ts";
import { sourcePhase } from "../../../support/source-cx.ts";

async function doubled(t: Test, status = "running") {
  const phase = await sourcePhase(t, status);
  phase.destination.answersInTurn(["running"]);
  const { cx } = phase;
  const end = double({ kind: "doubled", paused: false, fault: twoCopies(cx) }, cx);
  end.catch(() => undefined);
  await phase.destination.untilAsked(status === "gone" ? 0 : 1);
  return { ...phase, end };
}

t.test("the two copies are reported and written down, and neither is ended", async (t) => {
  const { cx, destination, qemu, record } = await doubled(t);
  t.match(cx.report.view().error, { code: "two-copies", guestNow: /both hosts/, advice: /Pause one of both/ });
  t.match(await record(), { kind: "granted" });
  await destination.untilAsked(2);
  t.same([...new Set(destination.asked)], ["standing"]);
  t.same(qemu.said, []);
  t.equal(cx.words.asker, "doubled");
});

t.test("the record keeps what the session knows of settings and pages, for the next life of the agent", async (t) => {
  const phase = await sourcePhase(t, "running");
  phase.destination.answersInTurn(["running"]);
  const settings = { capabilities: { "postcopy-ram": false }, parameters: {} };
  const blocks = [{ name: "pc.ram", byteLength: 4096 }];
  const postcopy = { ramSectionId: 2, blocks, frameBytes: 4096, creditWindowBytes: 8192, codecs: ["zstd"] };
  const session = { kept: { settings, postcopy, paused: false }, isPostcopy: true, qmp: undefined };
  const loaded = { session } as unknown as Loaded;
  const end = double({ kind: "doubled", paused: false, loaded, fault: twoCopies(phase.cx) }, phase.cx);
  end.catch(() => undefined);
  await phase.destination.untilAsked(1);
  t.match(await phase.record(), { kind: "granted", settings, postcopy });
  phase.cx.words.say("destination");
  t.match(await end, { kind: "releasing", loaded });
});

t.test("when the copy at the source ends, the guest is left at the destination", async (t) => {
  const { qemu, end } = await doubled(t);
  await qemu.end();
  t.match(await end, { kind: "releasing" });
});

t.test("the end of the source QEMU does not count while another QEMU runs the guest at the source", async (t) => {
  const { qemu, destination, end } = await doubled(t);
  await qemu.end();
  const other = await FakeQemu.start(t, { status: "running" }, qemu.path);
  const asked = destination.calls.length;
  await destination.untilAsked(asked + 2);
  await other.end();
  t.match(await end, { kind: "releasing" });
  t.same(other.said, []);
});

t.test("when the copy at the destination ends, the guest stays here, and this agent does not start it", async (t) => {
  const { destination, end, cx, qemu, record } = await doubled(t);
  destination.answersInTurn(["lost"]);
  t.match(await end, {
    kind: "withdrawing",
    fault: {
      code: "two-copies",
      message: /where its copy has ended/,
      advice: /disks/,
      guestNow: "the guest runs at the source",
    },
  });
  t.match(await record(), { kind: "kept", untold: true });
  t.same(qemu.said, []);
  t.equal(cx.report.view().error, undefined);
});

t.test("the copy at a destination that cannot be asked does not count as ended", async (t) => {
  const { destination, end, qemu } = await doubled(t);
  await destination.close();
  let looks = 0;
  qemu.whim = ({ execute }) => {
    if (execute === "query-status") looks++;
    return undefined;
  };
  let isOver = false;
  const over = (): void => {
    isOver = true;
  };
  end.then(over, over);
  await eventually(() => (looks > 1 ? true : undefined), { timeoutMs: 15_000, what: "another look" });
  t.notOk(isOver);
  t.same(qemu.said, []);
});

t.test("the operator's word ends the state", async (t) => {
  const there = await doubled(t);
  there.cx.words.say("destination");
  t.match(await there.end, { kind: "releasing", overruled: true });
  const here = await doubled(t);
  here.cx.words.say("source");
  t.match(await here.end, { kind: "withdrawing", fault: { guestNow: "the guest runs at the source" } });
});

t.test("a disk that takes no record changes nothing about the next state", async (t) => {
  const phase = await sourcePhase(t, "running");
  phase.failWrites(true);
  phase.destination.answersInTurn(["lost"]);
  const next = await double({ kind: "doubled", paused: false, fault: twoCopies(phase.cx) }, phase.cx);
  t.match(next, { kind: "withdrawing" });
});

t.test("when both copies have ended the guest is in doubt again, and no older copy is started", async (t) => {
  const { destination, end, qemu } = await doubled(t);
  destination.answersInTurn(["waiting"]);
  await qemu.end();
  destination.answersInTurn(["lost"]);
  t.match(await end, { kind: "inDoubt", fault: { code: "in-doubt", message: /does not run here any more/ } });
  t.same(qemu.said, []);
});
