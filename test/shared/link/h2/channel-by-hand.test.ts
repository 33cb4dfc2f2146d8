/** Tests the channel by hand against a server of grpc-js, with the suite that every channel has to pass. */
import t from "tap";
import { channelCompliance } from "../../../compliance/channel.ts";
import { openGrpcPair } from "../../../support/link.ts";
import { folder } from "../../../support/link-fixtures.ts";
import { security, TestCa } from "../../../support/tls.ts";

t.setTimeout(180_000);

t.test("over TCP in clear", async (t) => channelCompliance(t, (t) => openGrpcPair(t)));

t.test("over a unix socket", async (t) => {
  const sockets = folder(t);
  channelCompliance(t, (t) => openGrpcPair(t, { folder: sockets }));
});

t.test("over mutual TLS", async (t) => {
  const ca = new TestCa(folder(t)).make("alpha=127.0.0.1", "beta=127.0.0.1");
  const both = { source: security(ca.material("alpha")), destination: security(ca.material("beta")) };
  channelCompliance(t, (t) => openGrpcPair(t, { security: both }));
});
