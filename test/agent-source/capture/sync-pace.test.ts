/** Tests `SyncPace`: for how long QEMU's stream is left unread between two syncs. */
import t from "tap";
import { SyncPace } from "../../../agent-source/capture/sync-pace.ts";

t.test("QEMU syncs at most once in each period", async (t) => {
  const pace = new SyncPace(20, 1000);
  t.equal(pace.holdMs(300, true, 1010), 40, "the hold lasts for the rest of the period");
  t.equal(pace.holdMs(300, true, 1051), 49);
});

t.test("a section that QEMU's clock ended is not held, since no sync follows it", async (t) => {
  const pace = new SyncPace(20, 0);
  for (let section = 0; section < 100; section++) t.equal(pace.holdMs(65, false, section), 0);
});

t.test("after a long pass the stream is held for as long as the pass took, up to a period", async (t) => {
  const pace = new SyncPace(20, 0);
  t.equal(pace.holdMs(3000, true, 30), 30);
  t.equal(pace.holdMs(9000, true, 1060), 50, "no hold is longer than a period, since the guest goes on dirtying");
});

t.test("near the switch a long pass is held only for the rest of its period", async (t) => {
  const pace = new SyncPace(20, 0);
  t.equal(pace.holdMs(3000, true, 30, true), 20);
  t.equal(pace.holdMs(9000, true, 1050, true), 0);
});

t.test("time for which the stream was held for another reason is not part of a turn", async (t) => {
  const pace = new SyncPace(20, 0);
  pace.begins(400);
  t.equal(pace.holdMs(300, true, 410), 40);
});

t.test("empty sections are read without a hold at first, since those in the socket are old news", async (t) => {
  const pace = new SyncPace(20, 0);
  let read = 0;
  let wait = 0;
  while (wait === 0) {
    read++;
    wait = pace.holdMs(0, true, 1);
  }
  t.ok(read > 278 && read < 1000, `${read} were read: more than the socket holds, and not without end`);
  t.equal(wait, 499, "a guest that dirties nothing is looked at ten times less often");
  t.equal(pace.holdMs(7, true, 501), 49, "a guest that dirties something again is looked at as often as any other");
});

t.test("near the switch an idle guest is looked at as often as any other guest", async (t) => {
  const pace = new SyncPace(20, 0);
  let wait = 0;
  while (wait === 0) wait = pace.holdMs(0, true, 1, true);
  t.equal(wait, 49);
});
