/** Where an agent and a QEMU meet: the directory of the guest where it has one, and what its user may do there. */
import { chownSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { admitQemu, meetingPlace, meetingPlaces } from "../../../shared/runtime/meeting-place.ts";
import { asNobody } from "../../support/as-nobody.ts";
import { folder } from "../../support/link-fixtures.ts";

t.test("a guest is met in its own directory where the host has one, else in runtimeDirectory", async (t) => {
  const runtime = join(folder(t), "run");
  t.equal(meetingPlace("web", runtime), runtime);
  t.same(await meetingPlaces(runtime), [runtime]);
  mkdirSync(`${runtime}-guests/web`, { recursive: true });
  t.equal(meetingPlace("web", runtime), `${runtime}-guests/web`);
  t.equal(meetingPlace("db", runtime), runtime);
  t.same(await meetingPlaces(runtime), [runtime, `${runtime}-guests/web`]);
});

t.test(
  "only in the directory of another user may others write to a file of the agent, and none may read it",
  asNobody,
  async (t) => {
    const directory = folder(t);
    const file = join(directory, "m.stream");
    writeFileSync(file, "", { mode: 0o600 });
    await admitQemu(file);
    t.equal(statSync(file).mode & 0o777, 0o600);
    chownSync(directory, 65534, 65534);
    await admitQemu(file);
    t.equal(statSync(file).mode & 0o777, 0o602);
  },
);
