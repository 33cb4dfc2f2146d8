/** Tests what a migration must undo when the guest stays at the source, by how far the migration had come. */
import t from "tap";
import {
  grantedOf,
  isEnd,
  isOfPostcopy,
  keptOf,
  type Loaded,
  undoHandOver,
  undoSession,
  withoutSession,
} from "../../../agent-source/migration/source-state.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { FAKE_SETTINGS as settings } from "../../support/fake-guest-facts.ts";
import { RESUMED_POSTCOPY as postcopy } from "../../support/fake-resumed.ts";
import { loadedOf, migrating, passing } from "../../support/migrating.ts";

const fault = new MigrationFault("cancelled", "by the operator");

t.test("the further a migration has come, the more has to be undone before the guest may run here", async (t) => {
  const { session } = await migrating(t);
  const common = { session, channel: session.channel, qmp: session.qmp, touched: true, accepted: true, settings };
  const cases = [
    ["copying", { mayBeWhole: false, isRetired: false, granted: "no" }],
    ["whole", { mayBeWhole: true, isRetired: true, granted: "no" }],
    ["recording", { mayBeWhole: true, isRetired: true, granted: "unsaid" }],
    ["granted", { mayBeWhole: true, isRetired: true, granted: "givenBack" }],
  ] as const;
  for (const [reached, undo] of cases)
    t.match(undoSession(session, reached), { ...common, ...undo, paused: false }, reached);
  session.paused = true;
  t.match(undoSession(session, "whole"), { paused: true }, "a paused guest is not started");
});

t.test("after post-copy's package the destination is never whole, since it misses pages", async (t) => {
  const clock = new FakeClock();
  const { session } = await migrating(t, { stream: { postcopy: true }, clock });
  t.equal(isOfPostcopy({ loaded: loadedOf(session), paused: false }), false, "the package has not come");
  await passing(
    clock,
    session.letPostcopy(async () => undefined),
  );
  await session.packaged.promise;
  t.match(undoSession(session, "whole"), { mayBeWhole: false, postcopy: { ramSectionId: 2 } });
  t.equal(isOfPostcopy({ loaded: loadedOf(session), paused: false }), true);
});

t.test("an agent that has started again undoes a refused grant from its record alone", (t) => {
  const granted = "givenBack";
  t.same(undoHandOver({ settings, paused: true }), {
    ...{ touched: true, accepted: true, mayBeWhole: true, isRetired: true, granted, paused: true, settings },
  });
  t.match(undoHandOver({ postcopy, paused: false }), { mayBeWhole: false, postcopy });
  const complete = { ...postcopy, complete: true } as const;
  t.match(undoHandOver({ postcopy: complete, paused: false }), { mayBeWhole: true }, "QEMU had sent every page");
  t.end();
});

t.test("a granted guest is passed on with its session, and without it as a later agent would find it", async (t) => {
  const { session } = await migrating(t);
  const loaded: Loaded = loadedOf(session);
  session.stoppedWith = postcopy;
  t.same(grantedOf({ loaded, paused: false }), { loaded, paused: false });
  t.same(keptOf({ loaded, paused: false }), { settings, postcopy, paused: false });
  t.same(withoutSession({ loaded, paused: true }), { paused: true, settings, postcopy });
  t.same(withoutSession({ postcopy, paused: false }), { paused: false, postcopy });
});

t.test("only a guest that is moved, kept or stranded leaves an agent that starts again nothing to do", (t) => {
  t.ok(isEnd({ kind: "released" }));
  t.ok(isEnd({ kind: "kept", fault }));
  t.ok(isEnd({ kind: "stranded", fault }));
  t.notOk(isEnd({ kind: "withdrawing", fault }));
  t.notOk(isEnd({ kind: "orphaned", fault }));
  t.end();
});
