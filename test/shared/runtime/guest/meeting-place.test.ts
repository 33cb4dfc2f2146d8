/** Tests where an agent and a QEMU meet: in the guest's directory where it has one, and what its user may do there. */
import { chownSync, mkdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import t from "tap";
import {
  admitToFile,
  listenForQemu,
  meetingPlace,
  meetingPlaces,
} from "../../../../shared/runtime/guest/meeting-place.ts";
import { asNobody } from "../../../support/as-nobody.ts";
import { folder } from "../../../support/link-fixtures.ts";

t.test("a guest is met in its own directory where the host has one, and elsewhere in runtimeDirectory", async (t) => {
  const runtime = join(folder(t), "run");
  t.equal(meetingPlace("web", runtime), runtime);
  t.same(await meetingPlaces(runtime), [runtime]);
  mkdirSync(`${runtime}-guests/web`, { recursive: true });
  t.equal(meetingPlace("web", runtime), `${runtime}-guests/web`);
  t.equal(meetingPlace("db", runtime), runtime);
  t.same(await meetingPlaces(runtime), [runtime, `${runtime}-guests/web`]);
});

t.test(
  "others may write to a file of the agent only in the directory of another user, and may never read it",
  asNobody,
  async (t) => {
    const directory = folder(t);
    const path = join(directory, "m.verify");
    const file = await open(path, "w", 0o600);
    t.teardown(() => file.close());
    const listen = async (name: string): Promise<number> => {
      const server = createServer();
      t.teardown(() => server.close());
      await listenForQemu(server, join(directory, name));
      return statSync(join(directory, name)).mode & 0o777;
    };
    await admitToFile(file, path);
    t.equal(statSync(path).mode & 0o777, 0o600);
    t.equal(await listen("own.stream"), 0o777 & ~process.umask());
    chownSync(directory, 65534, 65534);
    const umask = process.umask();
    t.equal(await listen("their.stream"), 0o602);
    t.equal(process.umask(), umask);
    // the guest has put a link to another file of the agent in the place of this one
    const secret = join(folder(t), "secret");
    writeFileSync(secret, "", { mode: 0o600 });
    rmSync(path);
    symlinkSync(secret, path);
    await admitToFile(file, path);
    t.equal((await file.stat()).mode & 0o777, 0o602);
    t.equal(statSync(secret).mode & 0o777, 0o600, "the file to which the link leads is as it was");
  },
);
