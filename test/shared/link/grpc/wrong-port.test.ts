/** Tests that a caller of a wrong port is told what answers there. */
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, createServer, type Server } from "node:net";
import { Server as GrpcServer, ServerCredentials } from "@grpc/grpc-js";
import t, { type Test } from "tap";
import { connectDestination } from "../../../../shared/link/grpc/grpc-link.ts";
import { serveDestination, serveSource } from "../../../../shared/link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../../../../shared/link/grpc/operator-client.ts";
import { LIMITS, migrationOperator, SERVE, sourceService } from "../../../support/link.ts";
import { offer, unexpected } from "../../../support/link-fixtures.ts";

const ANSWERS_MS = 20_000;

async function handshakeAt(t: Test, address: string) {
  const client = connectDestination(address, LIMITS);
  t.teardown(() => client.close());
  return await client.handshake(offer, ANSWERS_MS).then(
    () => ({ code: "answered", message: "", advice: "" }),
    (fault: unknown) => fault,
  );
}

async function guestsAt(t: Test, address: string) {
  const client = new GrpcOperatorClient(address, ANSWERS_MS);
  t.teardown(() => client.close());
  return await client.listGuests().then(
    () => ({ code: "answered", message: "", advice: "" }),
    (fault: unknown) => fault,
  );
}

async function listening(t: Test, server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => server.close());
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

t.test("a source agent that is taken for a destination agent is reported as such", async (t) => {
  const source = await serveSource(sourceService({}), SERVE);
  t.teardown(() => source.close(0));
  t.match(await handshakeAt(t, source.address), {
    code: "peer-unreachable",
    message: `${source.address} is a source agent's address, not a destination agent's`,
    advice: /ferry-destination there, which listens at port 7412/,
  });
});

t.test("a destination agent without operators is not taken for a program of another kind", async (t) => {
  const destination = await serveDestination({ handshake: unexpected, settle: unexpected }, SERVE);
  t.teardown(() => destination.close(0));
  t.match(await guestsAt(t, destination.address), { code: "peer-invalid", message: /does not implement/ });
});

t.test("what an agent itself does not support is refused in the agent's own words", async (t) => {
  const operator = migrationOperator({ listMigrations: () => [] });
  const destination = await serveDestination({ handshake: unexpected, settle: unexpected }, SERVE, operator);
  t.teardown(() => destination.close(0));
  const client = new GrpcOperatorClient(destination.address, ANSWERS_MS);
  t.teardown(() => client.close());
  await t.rejects(client.listGuests(), { code: "not-supported" });
});

t.test("a gRPC server of another kind is no agent", async (t) => {
  const server = new GrpcServer();
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, chosen) =>
      error === null ? resolve(chosen) : reject(error),
    ),
  );
  t.teardown(() => server.forceShutdown());
  const expected = { code: "peer-unreachable", message: /is no agent/, advice: /7411 and ferry-destination at 7412/ };
  t.match(await handshakeAt(t, `127.0.0.1:${port}`), expected);
  t.match(await guestsAt(t, `127.0.0.1:${port}`), expected);
});

for (const [what, make] of [
  ["an HTTP server", () => createHttpServer((_, response) => response.end("hello"))],
  ["a server that greets first", () => createServer((socket) => void socket.write("SSH-2.0-OpenSSH_9.2\r\n"))],
  ["a server that closes the connection", () => createServer((socket) => void socket.end())],
] as const)
  t.test(`${what} is no agent`, async (t) => {
    const address = await listening(t, make());
    for (const fault of [await handshakeAt(t, address), await guestsAt(t, address)])
      t.match(fault, { code: "peer-unreachable", message: new RegExp(address), advice: /port/ });
  });
