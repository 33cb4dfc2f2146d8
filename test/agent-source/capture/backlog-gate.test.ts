import t from "tap";
import { BacklogGate } from "../../../agent-source/capture/backlog-gate.ts";

t.test("shut while the link has enough to do, and not opened and shut for every few pages", async (t) => {
  const work = { backlogMs: 99, arenaMs: 500 };
  const gate = new BacklogGate(work);
  t.notOk(gate.isShut);
  work.backlogMs = 100;
  t.ok(gate.isShut);
  work.backlogMs = 50;
  t.notOk(gate.opens, "once shut it stays so until little is left");
  work.backlogMs = 49;
  t.ok(gate.opens);
});

t.test("near the switch nothing but a moment's work may wait", async (t) => {
  const work = { backlogMs: 3, arenaMs: 500 };
  const gate = new BacklogGate(work);
  t.notOk(gate.isShut);
  gate.drains = true;
  t.ok(gate.isShut);
  t.notOk(gate.opens);
  work.backlogMs = 2.9;
  t.ok(gate.opens);
});

t.test("a link that takes seconds for a full arena is read ahead of, for the order by heat", async (t) => {
  const work = { backlogMs: 900, arenaMs: 1300 };
  const gate = new BacklogGate(work);
  t.notOk(gate.isShut);
  t.ok(gate.opens);
  gate.drains = true;
  t.ok(gate.isShut, "but not near the switch");
  gate.drains = false;
  work.arenaMs = 1299;
  t.ok(gate.isShut, "the link became faster");
  work.backlogMs = 40;
  t.ok(gate.opens);
});
