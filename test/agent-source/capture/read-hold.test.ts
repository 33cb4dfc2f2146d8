/** Tests `ReadHold`: when QEMU's stream is left unread, and when it is read on. */
import t from "tap";
import { ReadHold } from "../../../agent-source/capture/read-hold.ts";
import { SyncPace } from "../../../agent-source/capture/sync-pace.ts";
import { FakeClock } from "../../support/fake-clock.ts";

function fixture() {
  const at = { firstPassDone: true, backlogMs: 0, arenaMs: 500, still: false, resumed: 0 };
  const clock = new FakeClock();
  const hold = new ReadHold({
    pace: new SyncPace(20, 0),
    work: at,
    standsStill: () => at.still,
    clock,
    onResume: () => {
      at.resumed++;
    },
  });
  return { hold, at, clock };
}

t.test("after a pass the stream is left unread until the link is about to run out of work", async (t) => {
  const { hold, at, clock } = fixture();
  clock.jump(1000);
  at.backlogMs = 500;
  t.ok(hold.afterSection(4000, true, false));
  hold.roomMade();
  hold.lookAgain();
  t.equal(at.resumed, 0);
  at.backlogMs = 40;
  clock.jump(400);
  hold.roomMade();
  t.equal(at.resumed, 1);
  clock.jump(10);
  at.backlogMs = 0;
  t.ok(hold.afterSection(300, true, true), "the turn that begins then is paced like any other");
});

t.test("a section that QEMU's clock ended is read on whatever waits, since no sync follows it", async (t) => {
  const { hold, at } = fixture();
  at.backlogMs = 500;
  t.notOk(hold.afterSection(65, false, false));
});

t.test("the first pass is read only as the link needs its pages", async (t) => {
  const { hold, at } = fixture();
  at.firstPassDone = false;
  at.backlogMs = 20;
  t.notOk(hold.beforeRead());
  at.backlogMs = 500;
  t.ok(hold.beforeRead());
  hold.lookAgain();
  t.equal(at.resumed, 0);
  at.backlogMs = 20;
  hold.lookAgain();
  t.equal(at.resumed, 1);
  at.backlogMs = 500;
  at.firstPassDone = true;
  t.notOk(hold.beforeRead(), "later passes are held only at their ends");
});

t.test(
  "the backlog is sent before the next sync while the switch is near, and not once it is no longer near",
  async (t) => {
    const { hold, at, clock } = fixture();
    clock.jump(1000);
    at.backlogMs = 20;
    hold.drains(true);
    t.ok(hold.afterSection(300, true, true));
    at.backlogMs = 1;
    hold.lookAgain();
    t.equal(at.resumed, 1);
    hold.drains(false);
    at.backlogMs = 20;
    clock.jump(1000);
    t.notOk(hold.afterSection(300, true, true), "nothing is held, since the turn began a second ago");
  },
);

t.test("a stream that is held for room is read on when there is room, whatever the backlog is", async (t) => {
  const { hold, at } = fixture();
  at.backlogMs = 500;
  hold.forRoom();
  hold.lookAgain();
  t.equal(at.resumed, 0);
  hold.roomMade();
  t.equal(at.resumed, 1);
});

t.test("the last pages, and the pages of a guest that stands still, are held only for a full arena", async (t) => {
  const { hold, at } = fixture();
  at.backlogMs = 500;
  hold.phase = "closing";
  t.notOk(hold.beforeRead());
  hold.phase = "paced";
  at.firstPassDone = false;
  at.still = true;
  t.notOk(hold.beforeRead());
  t.notOk(hold.afterSection(300, true, false));
});

t.test("a hold for the pace ends by itself when the next turn is due", async (t) => {
  const { hold, at, clock } = fixture();
  clock.jump(45);
  t.ok(hold.afterSection(300, true, true));
  await clock.advance(4);
  t.equal(at.resumed, 0);
  await clock.advance(1);
  t.equal(at.resumed, 1);
});
