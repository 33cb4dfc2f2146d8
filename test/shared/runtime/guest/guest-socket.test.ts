/** Tests sockets in a directory of another user, who may have put anything there, with real sockets and real owners. */
import { once } from "node:events";
import { chownSync, mkdirSync, readdirSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import t, { type Test } from "tap";
import { QmpClient } from "../../../../shared/qemu/qmp/qmp-client.ts";
import { connectToQemu, isListenedAt, strangerAt } from "../../../../shared/runtime/guest/guest-socket.ts";
import { processBehind } from "../../../../shared/runtime/guest/monitor-process.ts";
import { asNobody, NOBODY } from "../../../support/as-nobody.ts";
import { greeting, Monitor } from "../../../support/fake-monitor.ts";
import { folder } from "../../../support/link-fixtures.ts";

/** Makes a directory of the agent with another user's directory in it, as {runtimeDirectory}-guests is. */
function places(t: Test): { readonly own: string; readonly theirs: string } {
  const own = folder(t);
  const theirs = join(own, "web");
  mkdirSync(theirs);
  chownSync(theirs, NOBODY, NOBODY);
  return { own, theirs };
}

/** Makes a monitor at this path that names this thread as its own. */
async function monitor(t: Test, path: string, owner: number, thread = process.pid): Promise<string> {
  const server = createServer((socket) => {
    const cpus = [{ "cpu-index": 0, "qom-path": "/", "thread-id": thread, target: "x86_64" }];
    const side = new Monitor(socket, ({ id }) => side.reply({ return: cpus, id }));
    side.reply(greeting());
  }).listen(path);
  t.teardown(() => server.close());
  await once(server, "listening");
  chownSync(path, owner, owner);
  return path;
}

async function met(path: string): Promise<void> {
  const qmp = await QmpClient.connect(path);
  qmp.close();
}

t.test("a directory of root or of the agent's own user belongs to no stranger", { ...asNobody }, async (t) => {
  const { own, theirs } = places(t);
  t.equal(strangerAt(join(own, "web.qmp")), undefined);
  t.equal(strangerAt(join(theirs, "web.qmp")), NOBODY);
  t.equal(strangerAt(join(own, "absent", "web.qmp")), undefined);
});

t.test("a socket that belongs to the user of its directory is connected to", { ...asNobody }, async (t) => {
  const { theirs } = places(t);
  await met(await monitor(t, join(theirs, "web.qmp"), NOBODY));
});

t.test("what a guest may put in place of its socket is refused with the reason", { ...asNobody }, async (t) => {
  const { own, theirs } = places(t);
  const other = await monitor(t, join(own, "other.qmp"), 0);
  const qmp = join(theirs, "web.qmp");
  symlinkSync(other, qmp);
  await t.rejects(met(qmp), {
    code: "qmp-forbidden",
    message: /web\.qmp is a link, .*user 65534; nobody was asked/,
  });
  writeFileSync(join(theirs, "file"), "");
  await t.rejects(met(join(theirs, "file")), { code: "qmp-forbidden", message: /is no socket/ });
  await t.rejects(met(await monitor(t, join(theirs, "moved.qmp"), 0)), { message: /belongs to user 0/ });
  await t.rejects(met(join(theirs, "absent")), { code: "qmp-unreachable" });
});

t.test("whether a QEMU listens is not asked of what a guest's link leads to", { ...asNobody }, async (t) => {
  const { own, theirs } = places(t);
  let connections = 0;
  const path = join(own, "other.qmp");
  const other = createServer(() => connections++).listen(path);
  t.teardown(() => other.close());
  await once(other, "listening");
  t.ok(await isListenedAt(path));
  const before = connections;
  symlinkSync(path, join(theirs, "web.qmp"));
  t.ok(await isListenedAt(join(theirs, "web.qmp")), "nothing is proven");
  // a connection that was made before this one would have been accepted before it
  await isListenedAt(path);
  t.equal(connections, before + 1);
  t.notOk(await isListenedAt(join(theirs, "absent")));
  t.ok(await isListenedAt(await monitor(t, join(theirs, "own.qmp"), NOBODY)));
});

t.test("in a directory of the agent's own, an operator's link is followed", async (t) => {
  const own = folder(t);
  const link = join(own, "link.qmp");
  symlinkSync(await monitor(t, join(own, "web.qmp"), process.getuid?.() ?? 0), link);
  await met(link);
});

t.test("neither a connection nor a refusal leaves a descriptor behind", { ...asNobody }, async (t) => {
  const { theirs } = places(t);
  const qmp = await monitor(t, join(theirs, "web.qmp"), NOBODY);
  const socket = connectToQemu(qmp);
  await once(socket, "connect");
  socket.destroy();
  await once(socket, "close");
  const open = readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === qmp;
    } catch {
      return false;
    }
  });
  t.same(open, []);
});

t.test("a QEMU that names another user's process as its own is not believed", { ...asNobody }, async (t) => {
  const { theirs } = places(t);
  const path = await monitor(t, join(theirs, "web.qmp"), NOBODY);
  const qmp = await QmpClient.connect(path);
  t.teardown(() => qmp.close());
  await t.rejects(processBehind(qmp, path), {
    code: "not-supported",
    message: /seems to be process \d+, which is not a process of user 65534/,
  });
});
