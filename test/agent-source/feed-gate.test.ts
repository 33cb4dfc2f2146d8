import t from "tap";
import { FeedGate } from "../../agent-source/feed-gate.ts";

t.test("shut while the link has enough to do, and not opened and shut for every few pages", async (t) => {
  let backlogMs = 99;
  const gate = new FeedGate(() => backlogMs);
  t.notOk(gate.isShut);
  backlogMs = 100;
  t.ok(gate.isShut);
  backlogMs = 50;
  t.notOk(gate.opens, "once shut it stays so until little is left");
  backlogMs = 49;
  t.ok(gate.opens);
});

t.test("near the switch nothing but a moment's work may wait", async (t) => {
  let backlogMs = 3;
  const gate = new FeedGate(() => backlogMs);
  t.notOk(gate.isShut);
  gate.drains = true;
  t.ok(gate.isShut);
  t.notOk(gate.opens);
  backlogMs = 2.9;
  t.ok(gate.opens);
});
