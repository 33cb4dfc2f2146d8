/**
 * Tests small floods of connections and calls against a real server of an agent: a caller that is on a list gets in
 * whatever others do, and no caller holds more than a bounded part of the agent. The large run is test/flood.
 */
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { Client, credentials, type ServiceError, status } from "@grpc/grpc-js";
import { service as health } from "grpc-health-check";
import t, { type Test } from "tap";
import { HEALTH_WATCHES_MAX } from "../../../../shared/link/callers/call-limits.ts";
import { CONNECTION_DEFAULTS } from "../../../../shared/link/callers/connection-limits.ts";
import { dialSource } from "../../../../shared/link/grpc/grpc-link.ts";
import { serveSource } from "../../../../shared/link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../../../../shared/link/grpc/operator-client.ts";
import type { Listener, SourceChannel } from "../../../../shared/link/link.ts";
import { type LinkSecurity, operatorSecurity } from "../../../../shared/link/tls/security.ts";
import { deferred } from "../../../../shared/runtime/deferred.ts";
import { eventually } from "../../../support/bounded.ts";
import { LIMITS, portOf, sourceService } from "../../../support/link.ts";
import { folder, hello } from "../../../support/link-fixtures.ts";
import { security, TestCa } from "../../../support/tls.ts";
import { destination, shake as offerTo } from "../../../support/tls-servers.ts";

t.setTimeout(240_000);

const ca = new TestCa(folder(t)).make("alpha=127.0.0.1,localhost", "beta=127.0.0.1", "operator", "stranger");
const alpha = ca.material("alpha");
const PORT = { host: "127.0.0.1", ca: alpha.ca, ALPNProtocols: ["h2"] };
const CLEAR: LinkSecurity = { kind: "clear", insecure: true };

async function shake(t: Test, { address }: Listener, as: LinkSecurity): Promise<void> {
  t.match(await offerTo(t, address, as, { timeoutMs: 60_000 }), { kind: "refusals" });
}

/** Connections that do nothing more until the test ends. `ended` counts those that were ended before. */
class Crowd<S extends Socket = Socket> {
  readonly sockets: readonly S[];
  ended = 0;

  constructor(t: Test, number: number, open: (index: number) => S) {
    this.sockets = Array.from({ length: number }, (_, index) => open(index));
    for (const socket of this.sockets)
      socket
        .on("error", () => undefined)
        .once("close", () => this.ended++)
        .resume();
    t.teardown(() => {
      for (const socket of this.sockets) socket.destroy();
    });
  }
}

/** Shakes hands with the certificate of this name, from an address of its own where one is given. */
function shown(name: string, port: number, localAddress?: string): TLSSocket {
  const { certificate: cert, key } = ca.material(name);
  return connectTls({ ...PORT, port, cert, key, ...(localAddress && { localAddress }) } as object);
}

const mine = () => security(ca.material("beta"));

t.test("a peer gets in while hundreds of connections shake no hands, of which a bounded number stays", async (t) => {
  const server = await destination(t, security(alpha));
  const flood = new Crowd(t, 400, (index) =>
    connect({ port: server.port, host: "127.0.0.1", localAddress: `127.0.${1 + (index % 5)}.1` }),
  );
  await eventually(() => flood.ended >= 400 - 96 || undefined, {
    timeoutMs: 60_000,
    what: "the end of the connections that are too many",
  });
  t.ok(400 - flood.ended > 0, "some may wait");
  await shake(t, server, mine());
  await server.lines.next(/connections were ended/);
});

t.test("a peer gets in while strangers with good certificates hold all that they can", async (t) => {
  const server = await destination(t, security(alpha), { handshakesPerSecond: 1000 });
  const strangers = new Crowd(t, 100, (index) => shown("stranger", server.port, `127.0.${1 + (index % 10)}.2`));
  await eventually(() => strangers.ended >= 36 || undefined, {
    timeoutMs: 60_000,
    what: "the end of the connections beyond 64",
  });
  await shake(t, server, mine());
  // the other connections are cut when their time is over, although their certificates are good
  await eventually(() => strangers.ended === 100 || undefined, {
    timeoutMs: 60_000,
    what: "the end of all connections",
  });
});

t.test("a stranger's connection ends with the first refusal, which the stranger hears", async (t) => {
  const server = await destination(t, security(alpha));
  for (const name of ["stranger", undefined]) {
    const session = connectHttp2(`https://127.0.0.1:${server.port}`, {
      ca: alpha.ca,
      ...(name === undefined ? {} : { cert: ca.material(name).certificate, key: ca.material(name).key }),
    });
    const closed = once(session, "close");
    const asked = (): Promise<Record<string, unknown>> =>
      new Promise((resolve) => {
        const path = "/ferry.v1.DestinationService/Handshake";
        const stream = session.request({ ":method": "POST", ":path": path, "content-type": "application/grpc" });
        stream.on("error", () => undefined);
        stream.on("response", resolve);
        stream.end();
      });
    t.match(await asked(), {
      "grpc-status": name === undefined ? "16" : "7",
      "grpc-message": name === undefined ? /showed%20no%20certificate/ : /stranger.*tls\.peers/,
      "ferry-code": name === undefined ? "peer-untrusted" : "not-authorised",
    });
    await closed;
  }
});

t.test("strangers are told the health of a service, and can watch nothing", async (t) => {
  const server = await destination(t, security(alpha));
  const client = new Client(server.address, credentials.createSsl(alpha.ca));
  t.teardown(() => client.close());
  const { Check, Watch } = health;
  const ask = (service: string): Promise<unknown> =>
    new Promise((resolve) => {
      client.makeUnaryRequest(
        Check!.path,
        Check!.requestSerialize,
        Check!.responseDeserialize,
        { service },
        (fault, answer) => resolve(fault?.code ?? answer),
      );
    });
  t.match(await ask("ferry.v1.DestinationService"), { status: "SERVING" });
  t.equal(await ask("no.such.Service"), status.NOT_FOUND);
  t.equal(await ask("x".repeat(300)), status.INVALID_ARGUMENT);
  for (let i = 0; i < 10; i++)
    t.match(await ask(""), { status: "SERVING" }, "the answers come over new connections too");
  const stream = client.makeServerStreamRequest(Watch!.path, Watch!.requestSerialize, Watch!.responseDeserialize, {});
  const [fault] = await once(stream, "error");
  t.match(fault, { code: status.PERMISSION_DENIED, details: /Health\/Check/ });
});

t.test("with tls.strict a stranger is cut after the handshake, and the log says who it was", async (t) => {
  const server = await destination(t, security(alpha, { strict: true }));
  const { certificate: cert, key } = ca.material("stranger");
  for (const shown of [{}, { cert, key }]) {
    const socket: TLSSocket = connectTls({ ...PORT, port: server.port, ...shown });
    socket.on("error", () => undefined);
    let bytes = 0;
    socket.on("data", (part) => {
      bytes += part.length;
    });
    await once(socket, "close");
    t.equal(bytes, 0, "the stranger has heard no HTTP/2");
  }
  t.match(server.lines.all, [
    { fault: { message: /showed no certificate/ } },
    { fault: { message: /^stranger at 127\S+ may not do this/ } },
  ]);
  await shake(t, server, mine());
});

t.test("a peer that connects for many migrations at once does not end its own handshakes", async (t) => {
  const server = await destination(t, security(alpha));
  // from now on the address is known as a peer's
  await shake(t, server, mine());
  const many = new Crowd(t, 40, () => shown("beta", server.port));
  const shaken = (): true | undefined => many.sockets.every((one) => one.getProtocol() === "TLSv1.3") || undefined;
  await eventually(shaken, { timeoutMs: 60_000, what: "40 handshakes" });
  t.equal(many.ended, 0);
});

t.test("a listed peer that was taken over leaves places to others, however many addresses it uses", async (t) => {
  const connections = { max: 16, perAddress: 8, handshakesPerSecond: 1000 };
  const server = await destination(t, security(alpha), connections);
  const many = new Crowd(t, 24, (index) => shown("beta", server.port, `127.0.${1 + (index % 6)}.3`));
  await eventually(() => many.ended >= 16 || undefined, {
    timeoutMs: 60_000,
    what: "the end of the connections that are too many",
  });
  const operator = new GrpcOperatorClient(server.address, 20_000, operatorSecurity(ca.material("operator")));
  t.teardown(() => operator.close());
  // whether this server has such a service or not, the answer comes from one that knows the caller
  await operator.listMigrations().catch((fault: unknown) => t.match(fault, { code: /^(?!peer-unreachable)/ }));
  t.equal(many.ended, 16, "eight connections of this peer have stayed");
});

t.test("in clear, connections that do nothing make room, and a transfer stays", async (t) => {
  const arrival = deferred<SourceChannel>();
  const service = sourceService({
    acceptTransfer: (_, channel) => arrival.resolve(channel),
    listMigrations: () => [],
  });
  const connections = { ...CONNECTION_DEFAULTS, max: 16, perAddress: 16 };
  const listener = await serveSource(service, {
    listen: ["127.0.0.1:0"],
    limits: { ...LIMITS, security: CLEAR },
    connections,
  });
  t.teardown(() => listener.close(0));
  const transfer = dialSource(listener.address, LIMITS);
  transfer.send(hello);
  const source = await arrival.promise;
  const flood = new Crowd(t, 200, () =>
    connect({ port: portOf(listener), host: "127.0.0.1", localAddress: "127.0.0.1" }),
  );
  await eventually(() => flood.ended >= 200 - 16 || undefined, {
    timeoutMs: 60_000,
    what: "the end of the connections that are too many",
  });
  const operator = new GrpcOperatorClient(listener.address, 20_000);
  t.teardown(() => operator.close());
  t.same(await operator.listMigrations(), []);
  const got = deferred<string>();
  source.receive((message) => got.resolve(message.kind));
  transfer.send({ kind: "ack", sequence: 1, appliedBytes: 0 });
  t.equal(await got.promise, "ack");
  transfer.receive(() => {});
  transfer.close();
  source.close();
  await transfer.closed;
});

t.test("the watches of the health are bounded, and so are a connection's calls a second", async (t) => {
  const server = await destination(t, CLEAR);
  const client = new Client(server.address, credentials.createInsecure());
  t.teardown(() => client.close());
  const { Check, Watch } = health;
  const watch = () =>
    client
      .makeServerStreamRequest(Watch!.path, Watch!.requestSerialize, Watch!.responseDeserialize, {})
      .on("error", () => undefined);
  const open = Array.from({ length: HEALTH_WATCHES_MAX }, watch);
  for (const one of open) await once(one, "data");
  const [fault] = await once(watch(), "error");
  t.match(fault, { code: status.RESOURCE_EXHAUSTED, details: /32 callers watch the health/ });
  open[0]?.cancel();
  await eventually(
    async () => {
      const again = watch();
      const answer = await Promise.race([
        once(again, "data")
          .then(() => true)
          .catch(() => undefined),
        once(again, "error")
          .then(() => undefined)
          .catch(() => undefined),
      ]);
      return answer;
    },
    { timeoutMs: 60_000, what: "a place for one more watch" },
  );
  const codes: (number | undefined)[] = [];
  const ask = (): Promise<void> =>
    new Promise((resolve) => {
      const done = (error: ServiceError | null): void => {
        codes.push(error?.code);
        resolve();
      };
      client.makeUnaryRequest(Check!.path, Check!.requestSerialize, Check!.responseDeserialize, {}, done);
    });
  const isRefused = (code: number | undefined): boolean => code === status.RESOURCE_EXHAUSTED;
  await eventually(
    async () => {
      await Promise.all(Array.from({ length: 150 }, ask));
      return codes.some(isRefused) || undefined;
    },
    { timeoutMs: 60_000, what: "a call that is refused" },
  );
  t.ok(codes.includes(undefined), "some are served");
  await Promise.all(Array.from({ length: 1000 }, ask));
  t.ok(
    codes.some((code) => code === status.UNAVAILABLE || code === status.CANCELLED || code === status.INTERNAL),
    "a caller that goes on loses its connection",
  );
});
