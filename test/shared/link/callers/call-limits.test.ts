/** Tests what becomes of a caller that sends only a part of its request. */
import { once } from "node:events";
import { connect } from "node:http2";
import t from "tap";
import { serveDestination } from "../../../../shared/link/grpc/grpc-server.ts";
import { eventually } from "../../../support/bounded.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { LIMITS, portOf } from "../../../support/link.ts";
import { refusals } from "../../../support/tls-servers.ts";

const WITHIN = { timeoutMs: 60_000 };

t.test("a connection whose request does not arrive is ended, since what has arrived of it keeps memory", async (t) => {
  const clock = new FakeClock();
  const security = { kind: "clear", insecure: true } as const;
  const service = {
    handshake: async () => refusals,
    settle: async () => ({ standing: "unknown", reason: "nothing was ever begun" }) as const,
  };
  const listener = await serveDestination(service, { listen: ["127.0.0.1:0"], limits: { ...LIMITS, security }, clock });
  t.teardown(() => listener.close(0));
  const session = connect(`http://127.0.0.1:${portOf(listener)}`);
  t.teardown(() => session.destroy());
  session.on("error", () => undefined);
  await once(session, "remoteSettings");
  const before = clock.pending;
  const path = "/ferry.v1.DestinationService/Handshake";
  const stream = session.request({
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    te: "trailers",
  });
  stream.on("error", () => undefined);
  // a whole message comes, and the request does not end with it
  stream.write(Buffer.of(0, 0, 0, 0, 0));
  await eventually(() => clock.pending > before || undefined, { ...WITHIN, what: "the call" });
  const closed = once(session, "close");
  await clock.advance(19_000);
  t.notOk(session.closed);
  await clock.advance(2000);
  await closed;
});
