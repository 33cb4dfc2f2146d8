/** Tests `Announcer`: when observers are told about changes of state. */
import t from "tap";
import { Announcer } from "../../../agent-source/service/announcer.ts";
import type { MigrationStatus, MigrationView } from "../../../shared/protocol/report.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";

function setUp() {
  let status: MigrationStatus = "copying";
  let views = 0;
  const announcer = new Announcer(() => {
    views++;
    return { status } as MigrationView;
  });
  const told: MigrationStatus[] = [];
  const first = deferred<void>();
  const end = announcer.add((view) => {
    told.push(view.status);
    first.resolve();
  });
  const change = (to: MigrationStatus, isEnd = false): void => {
    status = to;
    announcer.changed(isEnd);
  };
  return { change, told, end, first: first.promise, views: () => views };
}

t.test("of states that follow each other closely only the last is announced, a moment later", async (t) => {
  const { change, told, first, views } = setUp();
  change("switching");
  change("granting");
  t.equal(views(), 0, "no view is made while the guest stands still");
  await first;
  t.same(told, ["granting"]);
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
