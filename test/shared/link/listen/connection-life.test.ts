/** Tests how long connections over TLS live, against a real server of an agent whose clock a test moves. */
import { once } from "node:events";
import { connect as connectHttp2, type ClientHttp2Session as Session } from "node:http2";
import { connect, createServer } from "node:net";
import t, { type Test } from "tap";
import { CONNECTION_DEFAULTS } from "../../../../shared/link/callers/connection-limits.ts";
import { dialSource } from "../../../../shared/link/grpc/grpc-link.ts";
import { serveSource } from "../../../../shared/link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../../../../shared/link/grpc/operator-client.ts";
import type { SourceChannel } from "../../../../shared/link/link.ts";
import { listenAt } from "../../../../shared/link/listen/clear-listener.ts";
import { operatorSecurity } from "../../../../shared/link/tls/security.ts";
import { deferred } from "../../../../shared/runtime/deferred.ts";
import { eventually } from "../../../support/bounded.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { LIMITS, portOf, sourceService } from "../../../support/link.ts";
import { folder, hello } from "../../../support/link-fixtures.ts";
import { security, TestCa } from "../../../support/tls.ts";
import { destination } from "../../../support/tls-servers.ts";

const ca = new TestCa(folder(t)).make("alpha=127.0.0.1,localhost", "beta=127.0.0.1", "operator");
const alpha = ca.material("alpha");

/** Opens a port whose connections lead to the server. `taken` counts the pieces that came from the clients. */
async function relayTo(t: Test, port: number): Promise<{ readonly port: number; readonly taken: number }> {
  const counted = { port: 0, taken: 0 };
  const relay = createServer((near) => {
    const far = connect({ port, host: "127.0.0.1" });
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const)
      one
        .on("error", () => other.destroy())
        .on("close", () => other.destroy())
        .pipe(other);
    near.on("data", () => counted.taken++);
    t.teardown(() => near.destroy());
  });
  t.teardown(() => relay.close());
  counted.port = await listenAt(relay, { port: 0, host: "127.0.0.1" });
  return counted;
}

/** Makes a connection that shows a certificate and does nothing. `ended` resolves when the server has ended it. */
async function idleConnection(
  t: Test,
  port: number,
  name: string,
): Promise<{ session: Session; ended: Promise<void> }> {
  const { certificate, key } = ca.material(name);
  const session = connectHttp2(`https://127.0.0.1:${port}`, { ca: alpha.ca, cert: certificate, key });
  t.teardown(() => session.destroy());
  session.on("error", () => undefined);
  const ended = new Promise<void>((resolve) => session.once("close", () => resolve()));
  // the server has counted the connection when its settings come
  await once(session, "remoteSettings");
  return { session, ended };
}

t.test(
  "an operator's connection ends with its time, the next call makes another one, and a transfer goes on",
  async (t) => {
    const arrival = deferred<SourceChannel>();
    const service = sourceService({
      acceptTransfer: (_, channel) => arrival.resolve(channel),
      listMigrations: () => [],
    });
    const limits = { ...LIMITS, security: security(alpha) };
    const clock = new FakeClock();
    const listener = await serveSource(service, { listen: ["127.0.0.1:0"], limits, clock });
    t.teardown(() => listener.close(0));
    const relay = await relayTo(t, portOf(listener));
    const transfer = dialSource(`127.0.0.1:${relay.port}`, {
      ...LIMITS,
      security: security(ca.material("beta")),
      keepAliveMs: 100,
    });
    transfer.send(hello);
    const source = await arrival.promise;
    const operator = new GrpcOperatorClient(listener.address, 20_000, operatorSecurity(ca.material("operator")));
    t.teardown(() => operator.close());
    t.same(await operator.listMigrations(), []);
    const idle = await idleConnection(t, portOf(listener), "operator");
    await clock.advance(CONNECTION_DEFAULTS.maxAgeMs - 2000);
    t.equal(idle.session.destroyed, false, "the connection does not end before");
    await clock.advance(3000);
    await idle.ended;
    // a call at the very moment of the end fails, and the next call connects again
    const listed = async () => operator.listMigrations().catch(() => undefined);
    t.same(await eventually(listed, { timeoutMs: 20_000, what: "an answer over a new connection" }), []);
    const got = deferred<string>();
    source.receive((message) => got.resolve(message.kind));
    transfer.send({ kind: "ack", sequence: 1, appliedBytes: 0 });
    t.equal(await got.promise, "ack");
    // grpc-js's client, once told to go, drops its connection at its next ping, after 100 ms here
    let isOver = false;
    void transfer.closed.then(() => {
      isOver = true;
    });
    const before = relay.taken;
    await eventually(() => relay.taken >= before + 8 || undefined, { timeoutMs: 60_000, what: "several pings" });
    t.equal(isOver, false, "the transfer goes on beyond the age and several pings");
    transfer.receive(() => {});
    transfer.close();
    source.close();
    await transfer.closed;
  },
);

t.test("a peer's connection ends when the certificate with which it was made ends", async (t) => {
  const clock = new FakeClock();
  const server = await destination(t, security(alpha), {}, clock);
  // the certificate is good for a day of the host's clock, which TLS goes by
  const endsAtMs = Math.floor(Date.now() / 1000 + 86_400) * 1000;
  ca.make(`--until=${endsAtMs / 1000}`, "beta=127.0.0.1");
  const idle = await idleConnection(t, server.port, "beta");
  clock.jump(endsAtMs - clock.nowUs() / 1000 - 1000);
  await clock.advance(500);
  t.equal(idle.session.destroyed, false, "the connection does not end before");
  await clock.advance(1500);
  await idle.ended;
});
