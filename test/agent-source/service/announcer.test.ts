/** Tests `Announcer`: when observers are told about changes of state. */
import t from "tap";
import { Announcer } from "../../../agent-source/service/announcer.ts";
import type { MigrationStatus, MigrationView } from "../../../shared/protocol/report.ts";
import { FakeClock } from "../../support/fake-clock.ts";

function setUp() {
  let status: MigrationStatus = "copying";
  let views = 0;
  const clock = new FakeClock();
  const view = (): MigrationView => {
    views++;
    return { status } as MigrationView;
  };
  const announcer = new Announcer(view, clock);
  const told: MigrationStatus[] = [];
  const end = announcer.add((view) => void told.push(view.status));
  const change = (to: MigrationStatus, isEnd = false): void => {
    status = to;
    announcer.changed(isEnd);
  };
  return { change, told, end, clock, views: () => views };
}

t.test("of states that follow each other closely only the last is announced, a moment later", async (t) => {
  const { change, told, clock, views } = setUp();
  change("switching");
  change("granting");
  await clock.advance(49);
  t.equal(views(), 0, "no view is made while the guest stands still");
  await clock.advance(1);
  t.same(told, ["granting"]);
  t.equal(clock.pending, 0);
});

t.test("the end is announced at once, and nothing is announced after it", async (t) => {
  const { change, told, end } = setUp();
  change("granting");
  change("moved", true);
  t.same(told, ["moved"]);
  end();
  change("moved", true);
  t.same(told, ["moved"]);
});

t.test("without observers no view is made", (t) => {
  const { change, end, views } = setUp();
  end();
  change("moved", true);
  t.equal(views(), 0);
  t.end();
});
