/** Tests the sockets of an agent: whom each lets in, what it serves, and what the agent's log then says of a caller. */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, statSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import t from "tap";
import type { AuditLine } from "../../../../shared/link/grpc/audit.ts";
import { connectDestination } from "../../../../shared/link/grpc/grpc-link.ts";
import { serveDestination, serveSource } from "../../../../shared/link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../../../../shared/link/grpc/operator-client.ts";
import { USER_CONNECTIONS_MAX } from "../../../../shared/link/listen/unix-listener.ts";
import { connectionFault } from "../../../../shared/link/tls/connection-fault.ts";
import { packageRoot } from "../../../../shared/runtime/package-root.ts";
import { eventually } from "../../../support/bounded.ts";
import { view } from "../../../support/cli-fixtures.ts";
import { migrationOperator, SERVE, sourceService } from "../../../support/link.ts";
import { call, folder, offer, refusal, unexpected } from "../../../support/link-fixtures.ts";

const ME = `${process.getuid?.()} \\(${execFileSync("id", ["-un"], { encoding: "utf8" }).trim()}\\)`;
const IS_ROOT = process.getuid?.() === 0;
const NOBODY = 65534;
const modeOf = (path: string): number => statSync(path).mode & 0o777;

/** Tries to connect as another user. @returns "connected", or the code of the failure */
function connectAs(uid: number, path: string): string {
  const script = `require("net").connect(process.argv[1]).on("connect", function () { console.log("connected"); this.destroy(); })
    .on("error", (e) => console.log(e.code))`;
  const { stdout } = spawnSync(process.execPath, ["-e", script, path], { uid, gid: uid, encoding: "utf8" });
  return stdout.trim();
}

t.test("the operators' socket serves operators, lets their group in, and serves no agent", async (t) => {
  const path = join(folder(t), "destination.sock");
  const service = { handshake: unexpected, settle: unexpected };
  const operator = migrationOperator({ listMigrations: () => [] });
  const options = { ...SERVE, listen: [], operators: { path, group: process.getgid?.() } };
  const listener = await serveDestination(service, options, operator);
  t.equal(modeOf(path), 0o660);
  const client = new GrpcOperatorClient(`unix:${path}`, 5000);
  t.same(await client.listMigrations(), []);
  client.close();
  const peer = connectDestination(`unix:${path}`, SERVE.limits);
  await t.rejects(peer.handshake(offer, 5000), {
    code: "not-authorised",
    message: `/ferry.v1.DestinationService/Handshake is not for operators, whom unix:${path} serves`,
  });
  peer.close();
  await listener.close(0);
  t.throws(() => statSync(path), { code: "ENOENT" }, "the socket goes with the agent");
});

t.test("a socket of the setting `listen` serves agents, and lets in only the agent's own user", async (t) => {
  const path = join(folder(t), "peers.sock");
  const service = { handshake: () => Promise.reject(refusal), settle: unexpected };
  const listener = await serveDestination(service, { ...SERVE, listen: [`unix:${path}`] });
  t.teardown(() => listener.close(0));
  t.equal(modeOf(path), 0o600);
  const peer = connectDestination(`unix:${path}`, SERVE.limits);
  t.teardown(() => peer.close());
  await t.rejects(peer.handshake(offer, 5000), { code: "refused" });
});

t.test("the user nobody reaches neither socket", { skip: !IS_ROOT && "only root has another user" }, async (t) => {
  const at = folder(t);
  // the directory lets everybody through here
  chmodSync(at, 0o755);
  const [path, peers] = [join(at, "source.sock"), join(at, "peers.sock")];
  const options = { ...SERVE, listen: [`unix:${peers}`], operators: { path, group: 0 } };
  const listener = await serveSource(sourceService({}), options);
  t.teardown(() => listener.close(0));
  t.equal(connectAs(0, path), "connected");
  t.equal(connectAs(NOBODY, path), "EACCES");
  t.equal(connectAs(NOBODY, peers), "EACCES");
});

t.test("each call that changes something has one line, which says who made it and what for", async (t) => {
  const path = join(folder(t), "source.sock");
  const lines: AuditLine[] = [];
  const ended = view({ id: "m-1", status: "cancelled" });
  const service = sourceService({
    listMigrations: () => [],
    migrate: async () => "m-1",
    watch: (_, observer) => {
      observer(ended);
      return () => {};
    },
    cancel: async () => ended,
    resolve: async () => ended,
    plan: () => Promise.reject(refusal),
  });
  const options = { ...SERVE, listen: [], operators: { path, group: undefined } };
  const listener = await serveSource(service, { ...options, audit: (line) => lines.push(line) });
  t.teardown(() => listener.close(0));
  const client = new GrpcOperatorClient(`unix:${path}`, 20_000);
  t.teardown(() => client.close());
  await client.listMigrations();
  t.same(lines, [], "a call that only asks has no line");
  await client.migrate(call, () => undefined, new AbortController().signal);
  await client.cancel("m-1");
  await client.resolve({ id: "m-1", keep: "source", confirmed: true });
  await t.rejects(client.plan({ migration: call, observeMs: 0 }), { code: "refused" });
  const caller = new RegExp(`^a unix socket, user ${ME}, process ${process.pid}$`);
  t.match(lines, [
    { call: "Migrate", guest: "web", to: "host-b:7412", caller },
    { call: "CancelMigration", id: "m-1", caller },
    { call: "ResolveMigration", id: "m-1", keep: "source", confirmed: true, caller },
    { call: "Plan", guest: "web", to: "host-b:7412", caller },
  ]);
  t.equal(lines.length, 4);
});

t.test("a user with too many connections is told so, and another user gets in", async (t) => {
  const path = join(folder(t), "source.sock");
  const options = { ...SERVE, listen: [], operators: { path, group: undefined } };
  const listener = await serveSource(sourceService({ listMigrations: () => [] }), options);
  t.teardown(() => listener.close(0));
  const idle = await Promise.all(
    Array.from({ length: USER_CONNECTIONS_MAX }, async () => {
      const session = connectHttp2("http://localhost", { createConnection: () => connect(path) });
      t.teardown(() => session.destroy());
      // the agent's settings come after the agent has looked at who the caller is
      await once(session, "remoteSettings");
      return session;
    }),
  );
  const client = new GrpcOperatorClient(`unix:${path}`, 20_000);
  t.teardown(() => client.close());
  await t.rejects(client.listMigrations(), { code: "busy", message: /Your user has 48 connections to unix:/ });
  // beyond a few more connections no caller is told anything, and none keeps a place
  const more = Array.from({ length: 80 }, () => connect(path));
  t.teardown(() => more.map((socket) => socket.destroy()));
  let cut = 0;
  for (const socket of more)
    socket
      .on("error", () => undefined)
      .on("close", () => {
        cut += 1;
      })
      .resume();
  await eventually(() => cut >= 76 || undefined, {
    timeoutMs: 60_000,
    what: "the end of the connections that are too many",
  });
  if (IS_ROOT) {
    chmodSync(path, 0o666);
    chmodSync(dirname(path), 0o755);
    // spawnSync would block the agent, which is in this process
    const args = [join(packageRoot(), "dist/cli/main.js"), "--agent", `unix:${path}`, "list"];
    const child = spawn(process.execPath, args, {
      uid: NOBODY,
      gid: NOBODY,
      env: {},
      stdio: ["ignore", "pipe", "inherit"],
    });
    t.same(await once(child, "exit"), [0, null]);
  }
  idle[0]?.destroy();
  const again = new GrpcOperatorClient(`unix:${path}`, 20_000);
  t.teardown(() => again.close());
  const listed = () => again.listMigrations().catch(() => undefined);
  t.same(await eventually(listed, { timeoutMs: 20_000, what: "a place that has become free" }), []);
});

t.test("a caller that cannot use a socket is told why", async (t) => {
  const path = join(folder(t), "none.sock");
  const client = new GrpcOperatorClient(`unix:${path}`, 20_000);
  t.teardown(() => client.close());
  await t.rejects(client.listMigrations(), {
    code: "peer-unreachable",
    message: `No agent listens at unix:${path}`,
    advice: /^Start the agent there/,
  });
  const denied = new Error("No connection established. Last error: Error: connect EACCES /run/s. Resolution note: ");
  t.match(connectionFault(denied, "peer-unreachable", { address: "unix:/run/s", refused: undefined }), {
    code: "peer-unreachable",
    message: `User ${process.getuid?.()} may not use the socket unix:/run/s`,
    advice: /a member of its operators\.group$/,
  });
});
