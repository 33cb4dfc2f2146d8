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

t.test("of states that follow each other closely the last is told, a moment later", async (t) => {
  const { change, told, first, views } = setUp();
  change("switching");
  change("granting");
  t.equal(views(), 0, "the guest stands still: nothing is made for those who watch");
  await first;
  t.same(told, ["granting"]);
});

t.test("the end is told at once, and nothing behind it", async (t) => {
  const { change, told, end } = setUp();
  change("granting");
  change("moved", true);
  t.same(told, ["moved"]);
  end();
  change("moved", true);
  t.same(told, ["moved"]);
});

t.test("nothing is made where nobody watches", (t) => {
  const { change, end, views } = setUp();
  end();
  change("moved", true);
  t.equal(views(), 0);
  t.end();
});
