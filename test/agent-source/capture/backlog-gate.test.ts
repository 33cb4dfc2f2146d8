/** Tests `BacklogGate`: when QEMU's stream is left unread because the link has enough to do. */
import t from "tap";
import { BacklogGate } from "../../../agent-source/capture/backlog-gate.ts";

t.test("the gate shuts while the link has enough to do, and does not open and shut for every few pages", async (t) => {
  const work = { backlogMs: 99, arenaMs: 500 };
  const gate = new BacklogGate(work);
  t.notOk(gate.isShut);
  work.backlogMs = 100;
  t.ok(gate.isShut);
  work.backlogMs = 50;
  t.notOk(gate.opens, "a gate that has shut opens only when little is left");
  work.backlogMs = 49;
  t.ok(gate.opens);
});

t.test("near the switch the gate is shut while more than a moment's work waits", async (t) => {
  const work = { backlogMs: 3, arenaMs: 500 };
  const gate = new BacklogGate(work);
  t.notOk(gate.isShut);
  gate.drains = true;
  t.ok(gate.isShut);
  t.notOk(gate.opens);
  work.backlogMs = 2.9;
  t.ok(gate.opens);
});

t.test("a link that takes seconds for a full arena is read ahead of, so that heat can order the pages", async (t) => {
  const work = { backlogMs: 900, arenaMs: 1300 };
  const gate = new BacklogGate(work);
  t.notOk(gate.isShut);
  t.ok(gate.opens);
  gate.drains = true;
  t.ok(gate.isShut, "near the switch the stream is not read ahead");
  gate.drains = false;
  work.arenaMs = 1299;
  t.ok(gate.isShut, "the stream is not read ahead once the link has become faster");
  work.backlogMs = 40;
  t.ok(gate.opens);
});
