/** Tests mutual TLS between real servers and clients: who is let in, and what a caller that is not let in is told. */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { connect, createSecureContext } from "node:tls";
import { promisify } from "node:util";
import t, { type Test } from "tap";
import { dialSource } from "../../../../shared/link/grpc/grpc-link.ts";
import { serveSource } from "../../../../shared/link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../../../../shared/link/grpc/operator-client.ts";
import type { Listener, SourceChannel } from "../../../../shared/link/link.ts";
import {
  type LinkSecurity,
  operatorSecurity,
  securityOf,
  type TlsSecurity,
} from "../../../../shared/link/tls/security.ts";
import { deferred } from "../../../../shared/runtime/deferred.ts";
import { type KeyMaterial, readCertificates } from "../../../../shared/runtime/files/certificates.ts";
import { packageRoot } from "../../../../shared/runtime/package-root.ts";
import { LIMITS, portOf, sourceService } from "../../../support/link.ts";
import { folder, hello, offer } from "../../../support/link-fixtures.ts";
import { Lines, security, TestCa } from "../../../support/tls.ts";
import { destination, refusals, shake } from "../../../support/tls-servers.ts";

const own = new TestCa(folder(t)).make("alpha=127.0.0.1,localhost", "beta=127.0.0.1", "operator", "stranger=127.0.0.1");
own.make("elsewhere=192.0.2.1").make("--no-san", "old-style").make("--expired", "late=127.0.0.1");
own.make("--not-yet", "early=127.0.0.1");
const other = new TestCa(folder(t)).make("alpha=127.0.0.1", "operator");

const alpha = own.material("alpha");
/** Makes material with a certificate of the other CA, which trusts our CA. */
const foreign = (name: string) => readCertificates({ ...other.files(name), ca: own.files(name).ca });
/** Material that trusts our CA, and shows no certificate. */
const nameless = { ...alpha, context: createSecureContext({ ca: alpha.ca, minVersion: "TLSv1.3" }) };

async function operator(t: Test, at: TlsSecurity): Promise<Listener & { readonly lines: Lines }> {
  const lines = new Lines();
  const service = sourceService({ listMigrations: () => [] });
  const limits = { ...LIMITS, security: { ...at, log: lines.log } };
  const listener = await serveSource(service, { listen: ["127.0.0.1:0"], limits });
  t.teardown(() => listener.close(0));
  return { ...listener, lines };
}

function operatorClient(t: Test, address: string, as?: LinkSecurity): GrpcOperatorClient {
  const client = new GrpcOperatorClient(address, 5000, as);
  t.teardown(() => client.close());
  return client;
}

t.test("two agents on each other's lists shake hands, and know each other's names", async (t) => {
  const server = await destination(t, security(alpha));
  const mine = security(own.material("beta"));
  t.same(await shake(t, server.address, mine), refusals);
  t.match(server.callers, [/^TLS 1\.3, peer beta at 127\.0\.0\.1:\d+$/]);
  t.equal(securityOf(server.address, mine), "TLS 1.3, peer alpha");
  t.same(server.lines.all, []);
  t.same(
    await shake(t, server.address.replace("127.0.0.1", "localhost"), mine),
    refusals,
    "the server can be called by its name too",
  );
  t.match(
    [securityOf("unix:/a"), securityOf("127.0.0.1:1"), securityOf("192.0.2.1:1")],
    [/unix/, /loopback/, /insecure/],
  );
});

const untrusted = [
  [
    "of another CA",
    () => foreign("alpha"),
    /^The certificate of alpha, 127\.0\.0\.1 at 127\.\S+ is not signed by a CA of tls\.ca$/,
  ],
  ["that has expired", () => own.material("late"), /^The certificate of late, .* expired 20\d\d-\d\d-\d\dT/],
  ["that is not valid yet", () => own.material("early"), /^The certificate of early, .* is not valid before 20\d\d-/],
  ["that is missing", () => nameless, /^The caller at 127\.0\.0\.1:\d+ showed no certificate$/],
] as const;

for (const [title, material, message] of untrusted)
  t.test(`a caller's certificate ${title} is refused, and both sides are told why`, async (t) => {
    const server = await destination(t, security(alpha));
    const fault = { code: "peer-untrusted", message, advice: /certificate/ };
    await t.rejects(shake(t, server.address, security(material())), fault);
    t.match(server.lines.all, [
      { level: "warn", peer: /^127\.0\.0\.1:\d+$/, code: "peer-untrusted", fault: { message } },
    ]);
    t.same(server.callers, [], "the call was not looked at");
  });

const distrusted = [
  ["of another CA", () => foreign("alpha"), "peer-untrusted", /^The certificate of 127\S+ is not signed by a CA/],
  ["that has expired", () => own.material("late"), "peer-untrusted", /^The certificate of 127\S+ has expired$/],
  [
    "that is not valid yet",
    () => own.material("early"),
    "peer-untrusted",
    /^The certificate of 127\S+ is not valid yet$/,
  ],
  [
    "for another host",
    () => own.material("elsewhere"),
    "peer-untrusted",
    /127\S+ is for elsewhere, 192\.0\.2\.1, not for 127\.0\.0\.1$/,
  ],
  [
    "of a name not on the list",
    () => own.material("stranger"),
    "not-authorised",
    /^stranger, 127\.0\.0\.1 at 127\S+ .*tls\.peers/,
  ],
] as const;

for (const [title, material, code, message] of distrusted)
  t.test(`a server's certificate ${title} is refused by the caller, in a handshake and in a transfer`, async (t) => {
    const server = await destination(t, security(material()));
    await t.rejects(shake(t, server.address, security(alpha)), { code, message });
    t.same(server.callers, []);
    for (const byHand of [true, false]) {
      const transfer = dialSource(server.address, { ...LIMITS, security: security(alpha), byHand });
      transfer.send(hello);
      t.match(await transfer.closed, { code, message });
    }
  });

t.test("peers and operators are authorised separately", async (t) => {
  const server = await operator(t, security(alpha));
  const asOperator = operatorSecurity(own.material("operator"));
  t.same(await operatorClient(t, server.address, asOperator).listMigrations(), []);
  const asPeer = operatorClient(t, server.address, security(own.material("beta"))).listMigrations();
  await t.rejects(asPeer, {
    code: "not-authorised",
    message: /^beta, .*no name of its certificate is in tls\.operators/,
  });
  const transfer = dialSource(server.address, { ...LIMITS, security: asOperator });
  transfer.send(hello);
  t.match(await transfer.closed, { code: "not-authorised", message: /^operator at .* is in tls\.peers/ });
  t.match(server.lines.all, [{ call: /ListMigrations$/ }, { call: /Transfer$/, code: "not-authorised" }]);
});

t.test("a destination agent tells operators from peers too", async (t) => {
  const server = await destination(t, security(alpha));
  const asOperator = operatorSecurity(own.material("operator"));
  t.same(await operatorClient(t, server.address, asOperator).listMigrations(), []);
  const asPeer = operatorClient(t, server.address, security(own.material("beta"))).listMigrations();
  await t.rejects(asPeer, { code: "not-authorised", message: /^beta, .*is in tls\.operators/ });
  const shaken = shake(t, server.address, asOperator);
  await t.rejects(shaken, { code: "not-authorised", message: /^operator at .* is in tls\.peers/ });
  t.same(server.callers, []);
  t.match(server.lines.all, [{ call: /ListMigrations$/ }, { call: /Handshake$/, code: "not-authorised" }]);
});

t.test("an empty list lets nobody in, and the refusal says so", async (t) => {
  const server = await operator(t, security(alpha, { peers: [], operators: [] }));
  const asked = operatorClient(t, server.address, operatorSecurity(own.material("operator"))).listMigrations();
  await t.rejects(asked, { code: "not-authorised", message: /tls\.operators of the agent is empty.*nobody/ });
  const nobody = security(alpha, { peers: [] });
  await t.rejects(shake(t, server.address, nobody), {
    code: "not-authorised",
    message: /tls\.peers of the agent is empty/,
  });
});

t.test("a common name counts only in a certificate without alternative names", async (t) => {
  const server = await operator(t, security(alpha, { operators: ["old-style"] }));
  const client = operatorClient(t, server.address, operatorSecurity(own.material("old-style")));
  t.same(await client.listMigrations(), []);
});

t.test("an end in clear and an end with TLS do not meet, and each says what the other is", async (t) => {
  const secured = await destination(t, security(alpha));
  const clear: LinkSecurity = { kind: "clear", insecure: true };
  const plain = { code: "peer-unreachable", message: /closed the connection/, advice: /If it expects TLS/ };
  await t.rejects(shake(t, secured.address, clear), plain);
  t.match(secured.lines.all, [{ peer: /^127\.0\.0\.1:\d+$/, fault: { message: "The caller does not speak TLS" } }]);
  const open = await destination(t, clear);
  const reverse = { code: "peer-untrusted", message: /^127\S+ does not speak TLS$/ };
  await t.rejects(shake(t, open.address, security(alpha)), reverse);
  for (const byHand of [true, false]) {
    const lost = { ...plain, code: "peer-lost" };
    t.match(await dialSource(secured.address, { ...LIMITS, security: clear, byHand }).closed, lost);
    t.match(await dialSource(open.address, { ...LIMITS, security: security(alpha), byHand }).closed, reverse);
  }
  const loopback: LinkSecurity = { kind: "clear", insecure: false };
  t.throws(() => dialSource("192.0.2.1:7411", { ...LIMITS, security: loopback }), { code: "configuration" });
});

t.test("an agent with TLS serves operators at their socket, and no agent at any socket", async (t) => {
  const service = sourceService({ listMigrations: () => [] });
  const path = join(folder(t), "agent.sock");
  const limits = { ...LIMITS, security: security(alpha) };
  const operators = { path, group: undefined };
  const listener = await serveSource(service, { listen: ["127.0.0.1:0"], operators, limits });
  t.teardown(() => listener.close(0));
  t.same(await operatorClient(t, `unix:${path}`).listMigrations(), []);
  await t.rejects(serveSource(service, { listen: [`unix:${path}-2`], limits }), {
    code: "configuration",
    message: /would serve other agents without TLS and tls\.peers/,
  });
  t.throws(() => dialSource(`unix:${path}`, limits), {
    code: "not-authorised",
    message: `unix:${path} is not called: it is a socket, at which neither TLS nor tls.peers says who listens`,
  });
  const named = { ...LIMITS, security: { ...security(alpha), sockets: [path] } };
  const dialled = dialSource(`unix:${path}`, named);
  t.match(await dialled.closed, { code: "not-authorised", message: /Transfer is not for operators/ });
});

t.test("a source is dialled only at an address of its own certificate", async (t) => {
  const secured = await destination(t, security(alpha));
  for (const sourceAddress of ["gamma:7411", "192.0.2.1:7411", "unix:/run/ferry/source.sock"])
    await t.rejects(shake(t, secured.address, security(alpha), { saying: { ...offer, sourceAddress } }), {
      code: "not-authorised",
      message: `The source wants to be dialled at ${sourceAddress}; its certificate is for alpha, 127.0.0.1, localhost`,
    });
  t.same(secured.callers, [], "the agent does not hear of these offers");
});

t.test("TLS 1.2 is refused, and no session is resumed", async (t) => {
  const server = await destination(t, security(alpha));
  const target = { port: portOf(server), host: "127.0.0.1", ca: alpha.ca, ALPNProtocols: ["h2"] };
  const old = connect({ ...target, maxVersion: "TLSv1.2" });
  const [error] = await once(old, "error");
  t.match(error.message, /protocol version/);
  const socket = connect({ ...target, cert: alpha.certificate, key: alpha.key });
  const tickets: unknown[] = [];
  socket.on("session", (ticket) => tickets.push(ticket));
  await once(socket, "data");
  socket.destroy();
  for (const session of tickets as Buffer[]) {
    const again = connect({ ...target, session });
    await once(again, "secureConnect");
    t.notOk(again.isSessionReused());
    again.destroy();
  }
});

t.test("all who trust the agent may ask for its health, and only operators may use reflection", async (t) => {
  const server = await destination(t, security(alpha));
  const buf = join(packageRoot(), "node_modules/.bin/buf");
  const curl = async (path: string, ...words: string[]): Promise<string> => {
    const flags = ["curl", "--protocol", "grpc", "--cacert", own.files("alpha").ca];
    const address = server.address.replace("127.0.0.1", "localhost");
    const ran = promisify(execFile)(buf, [...flags, ...words, `https://${address}${path}`]);
    return await ran.then(
      ({ stdout }) => stdout,
      ({ stderr }) => stderr,
    );
  };
  const health = join(packageRoot(), "node_modules/grpc-health-check/proto");
  t.match(await curl("/grpc.health.v1.Health/Check", "--schema", health, "-d", "{}"), /SERVING/);
  t.match(await curl("", "--list-methods"), /not authenticated/);
  t.match(server.lines.all, [{ call: /ServerReflection/, fault: { message: /showed no certificate/ } }]);
  const { certificate, key } = own.files("operator");
  t.match(await curl("", "--list-methods", "--cert", certificate, "--key", key), /DestinationService\/Handshake/);
});

t.test("a certificate that changes counts for new connections, and open streams go on", async (t) => {
  const told = new Set<(material: KeyMaterial) => void>();
  const onChange = (listener: (material: KeyMaterial) => void): (() => boolean) => {
    told.add(listener);
    return () => told.delete(listener);
  };
  const certificates = { current: alpha, onChange };
  const arrived: SourceChannel[] = [];
  const next = { arrival: deferred<SourceChannel>() };
  const acceptTransfer = (_: unknown, channel: SourceChannel): void => {
    arrived.push(channel);
    next.arrival.resolve(channel);
  };
  const limits = { ...LIMITS, security: security(alpha, { certificates }) };
  const listener = await serveSource(sourceService({ acceptTransfer }), { listen: ["127.0.0.1:0"], limits });
  t.teardown(() => listener.close(0));
  const mine = { ...LIMITS, security: security(own.material("beta")) };
  const before = dialSource(listener.address, mine);
  before.send(hello);
  const source = await next.arrival.promise;
  certificates.current = own.material("stranger");
  for (const listener of told) listener(certificates.current);
  const after = dialSource(listener.address, mine);
  after.send(hello);
  t.match(await after.closed, { code: "not-authorised", message: /^stranger/ }, "the new certificate is shown");
  const got = deferred<string>();
  source.receive((message) => got.resolve(message.kind));
  before.send({ kind: "ack", sequence: 1, appliedBytes: 0 });
  t.equal(await got.promise, "ack", "the old stream goes on");
  before.receive(() => {});
  before.close();
  source.close();
  t.equal(await before.closed, undefined);
  t.equal(arrived.length, 1);
});

t.test("a server ends with its connections, also with those that said nothing", async (t) => {
  const server = await destination(t, security(alpha));
  const port = portOf(server);
  const idle = connect({ port, host: "127.0.0.1", ca: alpha.ca, ALPNProtocols: ["h2"] });
  await once(idle, "secureConnect");
  const closed = once(idle.resume(), "close");
  await server.close(0);
  await closed;
  await t.rejects(shake(t, server.address, security(alpha)), { code: "peer-unreachable" });
});
