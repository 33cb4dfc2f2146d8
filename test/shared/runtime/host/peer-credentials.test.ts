/** Tests who is found at the other end of a unix socket, as the kernel knows it. */
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, readFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import t, { type Test } from "tap";
import { peerCredentials } from "../../../../shared/runtime/host/peer-credentials.ts";
import { folder } from "../../../support/link-fixtures.ts";

/** Makes a socket to which another one has just connected. */
async function accepted(t: Test): Promise<{ socket: Socket; client: Socket }> {
  const server = createServer();
  server.listen(join(folder(t), "s.sock"));
  await once(server, "listening");
  t.teardown(() => server.close());
  const client = connect(String(server.address()));
  const [socket] = (await once(server, "connection")) as [Socket];
  t.teardown(() => client.destroy());
  t.teardown(() => socket.destroy());
  return { socket, client };
}

const user = spawnSync("id", ["-un"], { encoding: "utf8" }).stdout.trim();
const me = { pid: process.pid, uid: process.getuid?.() ?? -1, user };

t.test("the process and its user are found, and the socket goes on", async (t) => {
  const { socket, client } = await accepted(t);
  client.write("before ");
  t.same(await peerCredentials(socket), me);
  client.write("after");
  let read = "";
  for await (const part of socket) {
    read += part;
    if (read === "before after") break;
  }
  t.equal(read, "before after");
});

t.test("each of the two programs finds the same", async (t) => {
  const python =
    "import socket,struct; p,u,_=struct.unpack('3i', socket.socket(fileno=0).getsockopt(1,17,12)); print(p,u,'')";
  const { socket } = await accepted(t);
  t.match(await peerCredentials(socket, [["/usr/bin/none"], ["/usr/bin/env", "python3", "-c", python]]), {
    pid: process.pid,
    uid: me.uid,
  });
});

t.test("without a program, or without an answer, the caller is not known", async (t) => {
  const { socket } = await accepted(t);
  t.equal(await peerCredentials(socket, [["/usr/bin/none"]]), undefined);
  t.equal(await peerCredentials(socket, [["/bin/echo", "nonsense"]]), undefined);
  t.equal(await peerCredentials(socket, [["/bin/false"]]), undefined);
  socket.destroy();
  await once(socket, "close");
  t.equal(await peerCredentials(socket), undefined);
});

t.test("of many callers that connect at once, two are looked up at a time", async (t) => {
  const at = folder(t);
  // each program says when it begins and when it ends
  const script = `echo begins >>${at}/said; sleep 0.05; echo ends >>${at}/said; echo "1 2 somebody"`;
  const program = ["/bin/sh", "-c", script] as const;
  const sockets = await Promise.all(Array.from({ length: 8 }, () => accepted(t)));
  const found = await Promise.all(sockets.map(({ socket }) => peerCredentials(socket, [program])));
  t.same(
    found,
    sockets.map(() => ({ pid: 1, uid: 2, user: "somebody" })),
  );
  let running = 0;
  let most = 0;
  for (const word of readFileSync(join(at, "said"), "utf8").trim().split("\n")) {
    running += word === "begins" ? 1 : -1;
    most = Math.max(most, running);
  }
  t.ok(most <= 2, `${most} at a time`);
  t.equal(running, 0);
});

t.test("another user's process is found as such", { skip: me.uid !== 0 && "only root has another user" }, async (t) => {
  const at = folder(t);
  chmodSync(at, 0o755);
  const path = join(at, "s.sock");
  const server = createServer();
  server.listen(path);
  await once(server, "listening");
  t.teardown(() => server.close());
  chmodSync(path, 0o777);
  const { spawn } = await import("node:child_process");
  const script = `require("net").connect(process.argv[1])`;
  const other = spawn(process.execPath, ["-e", script, path], { uid: 65534, gid: 65534, stdio: "ignore" });
  t.teardown(() => other.kill("SIGKILL"));
  const [socket] = (await once(server, "connection")) as [Socket];
  t.teardown(() => socket.destroy());
  t.match(await peerCredentials(socket), { pid: other.pid, uid: 65534 });
});
