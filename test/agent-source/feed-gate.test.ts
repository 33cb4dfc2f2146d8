import t from "tap";
import { FeedGate } from "../../agent-source/feed-gate.ts";

t.test("shut while the link has enough to do, and not opened and shut for every few pages", async (t) => {
  let backlogMs = 99;
  const gate = new FeedGate(
    () => backlogMs,
    () => 500,
  );
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
  const gate = new FeedGate(
    () => backlogMs,
    () => 500,
  );
  t.notOk(gate.isShut);
  gate.drains = true;
  t.ok(gate.isShut);
  t.notOk(gate.opens);
  backlogMs = 2.9;
  t.ok(gate.opens);
});

t.test("a link that takes seconds for a full arena is read ahead of, for the order by heat", async (t) => {
  let arenaMs = 1300;
  let backlogMs = 900;
  const gate = new FeedGate(
    () => backlogMs,
    () => arenaMs,
  );
  t.notOk(gate.isShut);
  t.ok(gate.opens);
  gate.drains = true;
  t.ok(gate.isShut, "but not near the switch");
  gate.drains = false;
  arenaMs = 1299;
  t.ok(gate.isShut, "the link became faster");
  backlogMs = 40;
  t.ok(gate.opens);
});
