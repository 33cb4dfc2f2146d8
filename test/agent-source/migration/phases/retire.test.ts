/** Tests the end of QEMU's migration at the source, for each run state in which QEMU may be after it. */
import t, { type Test } from "tap";
import { completeMigration } from "../../../../agent-source/migration/phases/retire.ts";
import { QmpClient } from "../../../../shared/qemu/qmp/qmp-client.ts";
import { systemClock } from "../../../../shared/runtime/clock.ts";
import { FakeQemu } from "../../../support/fake-qemu.ts";

/** Lets a QEMU complete its migration and show these run states, one for each look; QEMU stays in the last one. */
async function completed(t: Test, ...statuses: readonly [string, ...string[]]): Promise<void> {
  const [first] = statuses;
  const qemu = await FakeQemu.start(t, { status: first, migration: "device" });
  const later = [...statuses];
  qemu.whim = ({ execute }) => {
    if (execute === "query-status") qemu.state.status = later.shift() ?? qemu.state.status;
    return undefined;
  };
  const qmp = await QmpClient.connect(qemu.path);
  t.teardown(() => qmp.close());
  const shut = (): void => qemu.migrationIs("completed");
  await completeMigration({ qmp, signal: new AbortController().signal, shut }, systemClock);
  t.same(later, [], "every state was seen");
}

t.test("a QEMU that has completed its migration is waited for until it has left finish-migrate", (t) =>
  completed(t, "finish-migrate", "finish-migrate", "finish-migrate", "postmigrate"),
);

t.test("a QEMU that is retired already is not asked again", (t) => completed(t, "postmigrate"));

t.test("a QEMU that somebody has started meanwhile is reported as running", (t) =>
  t.rejects(completed(t, "finish-migrate", "running"), {
    code: "qemu-failed",
    message: "The source QEMU is running after its migration, not postmigrate",
  }),
);
