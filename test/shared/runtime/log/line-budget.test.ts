/** Tests how many lines of the log one cause may have. */
import t from "tap";
import { Budgets, LineBudget } from "../../../../shared/runtime/log/line-budget.ts";
import { FakeClock } from "../../../support/fake-clock.ts";

t.test("each kind of line has a share of its own, and lines that are left out are counted", async (t) => {
  const budget = new LineBudget(3);
  const told: unknown[] = [];
  const take = (text: string): boolean => budget.take(text, (kind, leftOut) => told.push([kind, leftOut]));
  t.same(
    [1, 2, 3, 4, 5].map(() => take("state")),
    [true, true, true, false, false],
  );
  t.ok(take("fault"), "this line is of another kind");
  t.same(told, [], "the number is told only when the minute is over");
});

t.test("when the minute is over, the number of lines left out is told, and lines are written again", async (t) => {
  const clock = new FakeClock();
  const budget = new LineBudget(1, clock);
  const told: unknown[] = [];
  const take = (): boolean => budget.take("state", (kind, leftOut) => told.push([kind, leftOut]));
  t.same([take(), take(), take()], [true, false, false]);
  t.notOk(budget.isIdle);
  await clock.advance(59_999);
  t.same(told, []);
  await clock.advance(1);
  t.same(told, [["state", 2]]);
  t.same([take(), take()], [true, false]);
  await clock.advance(60_000);
  t.same(told, [
    ["state", 2],
    ["state", 1],
  ]);
});

t.test("kinds beyond the first ones share one budget", async (t) => {
  const budget = new LineBudget(1);
  const taken = Array.from({ length: 1000 }, (_, i) => budget.take(`fault number ${i}`, () => {}));
  t.equal(taken.filter((one) => one).length, 65);
});

t.test("causes beyond the first ones share one budget, and known causes keep theirs", async (t) => {
  const budgets = new Budgets({ perKind: 2, causesMax: 3 });
  const first = budgets.for("a");
  t.equal(budgets.for("a"), first);
  budgets.for("b");
  budgets.for("c");
  t.equal(budgets.for("d"), budgets.for("e"));
  t.not(budgets.for("d"), first);
  t.equal(budgets.for("a"), first);
});

t.test("a cause that has been quiet for a minute gives its budget to a new cause", async (t) => {
  const clock = new FakeClock();
  const budgets = new Budgets({ perKind: 1, causesMax: 2 }, clock);
  const [busy, quiet] = [budgets.for("busy"), budgets.for("quiet")];
  const take = (): boolean => busy.take("line", () => undefined);
  t.same([take(), take()], [true, false]);
  await clock.advance(59_000);
  take();
  await clock.advance(1000);
  t.notOk(busy.isIdle, "the cause said something one second ago");
  t.ok(quiet.isIdle);
  const made = budgets.for("new");
  t.not(made, budgets.for("another new"), "the new cause has the only free budget");
  t.equal(budgets.for("busy"), busy);
});
