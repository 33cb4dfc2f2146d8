/** The handshake over a real server. */
import t from "tap";
import { MigrationFault } from "../../../shared/fault.ts";
import { connectDestination } from "../../../shared/link/grpc-link.ts";
import { serveDestination } from "../../../shared/link/grpc-server.ts";
import type { Offer } from "../../../shared/protocol/messages.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { limits, onLoopback, refusal } from "../../support/link-fixtures.ts";

const offer: Offer = {
  protocolVersions: [1],
  migrationId: "m-1",
  token: Buffer.from("secret"),
  sourceAddress: "127.0.0.1:7411",
  dryRun: false,
  guest: {
    name: "web",
    definitionDigest: "00ff",
    machineType: "pc-q35-10.0",
    qemuVersion: { major: 10, minor: 0, micro: 2 },
    cpuModel: "qemu64-x86_64-cpu",
    cpuFeatures: { "1.ecx": 0xffffffff },
    ramBlocks: [{ name: "pc.ram", byteLength: 2 ** 33, pageSize: 4096 }],
  },
  transfer: {
    codecs: ["xbzrle", "zstd"],
    downtimeTargetMs: 300,
    deadlineMs: 0,
    onDeadline: "cancel",
    frameBytes: 262_144,
    creditWindowBytes: 8 << 20,
    verify: false,
  },
};

t.test("a handshake is answered, refused by reasons, fails, is too late or given up", async (t) => {
  const refusals = { kind: "refusals", refusals: refusal.refusals } as const;
  const answers = [
    async (asked: Offer) => {
      t.same(asked, offer);
      return refusals;
    },
    () => Promise.reject(new MigrationFault("stopping", "The agent is stopping")),
    () => deferred<never>().promise,
    () => deferred<never>().promise,
  ];
  const listener = await serveDestination({ handshake: (asked) => answers.shift()!(asked) }, onLoopback);
  const client = connectDestination(listener.address, limits);
  t.teardown(() => {
    client.close();
    return listener.close(0);
  });
  const { answer, roundTripMs } = await client.handshake(offer, 5000);
  t.same(answer, refusals);
  t.ok(roundTripMs > 0, `${roundTripMs}`);
  await t.rejects(client.handshake(offer, 5000), { code: "stopping", message: "The agent is stopping" });
  await t.rejects(client.handshake(offer, 50), { code: "timeout" });
  const giveUp = new AbortController();
  const given = client.handshake(offer, 5000, giveUp.signal);
  giveUp.abort(new MigrationFault("cancelled", "By the operator"));
  await t.rejects(given, { code: "cancelled" });
});
