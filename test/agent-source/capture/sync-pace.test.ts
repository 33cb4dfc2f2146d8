import t from "tap";
import { SyncPace } from "../../../agent-source/capture/sync-pace.ts";

t.test("one turn in each period", async (t) => {
  const pace = new SyncPace(20, 1000);
  t.equal(pace.holdMs(300, true, 1010), 40, "the rest of the period");
  t.equal(pace.holdMs(300, true, 1051), 49);
});

t.test("what QEMU ended on its clock is no end of a pass: no sync follows, nothing is held", async (t) => {
  const pace = new SyncPace(20, 0);
  for (let section = 0; section < 100; section++) t.equal(pace.holdMs(65, false, section), 0);
});

t.test("a pass that takes long leaves as long again, up to a period", async (t) => {
  const pace = new SyncPace(20, 0);
  t.equal(pace.holdMs(3000, true, 30), 30);
  t.equal(pace.holdMs(9000, true, 1060), 50, "and no longer: the guest goes on dirtying");
});

t.test("near the switch a long pass leaves no more than the rest of its period", async (t) => {
  const pace = new SyncPace(20, 0);
  t.equal(pace.holdMs(3000, true, 30, true), 20);
  t.equal(pace.holdMs(9000, true, 1050, true), 0);
});

t.test("what was held for something else is no part of a turn", async (t) => {
  const pace = new SyncPace(20, 0);
  pace.begins(400);
  t.equal(pace.holdMs(300, true, 410), 40);
});

t.test("empty sections are read on, since a socket full of them is old news", async (t) => {
  const pace = new SyncPace(20, 0);
  let read = 0;
  let wait = 0;
  while (wait === 0) {
    read++;
    wait = pace.holdMs(0, true, 1);
  }
  t.ok(read > 278 && read < 1000, `${read} were read: more than a socket holds, and not for ever`);
  t.equal(wait, 499, "a guest that dirties nothing is looked at ten times less often");
  t.equal(pace.holdMs(7, true, 501), 49, "and as often as any once it dirties something");
});

t.test("near the switch an idle guest is looked at as often as any other", async (t) => {
  const pace = new SyncPace(20, 0);
  let wait = 0;
  while (wait === 0) wait = pace.holdMs(0, true, 1, true);
  t.equal(wait, 49);
});
