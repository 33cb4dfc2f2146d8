/**
 * Moves a guest there and back over mutual TLS, for an operator who has a certificate. An operator who cannot prove who
 * it is, or is on no list, is refused and told why.
 */
import t, { type Test } from "tap";
import type { MigrationErrorView } from "../../shared/protocol/report.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { ferry, type HostAgents } from "../support/agents.ts";
import { ferryJson, migrate, requireMoved } from "../support/ferry-json.ts";
import { IDLE, openPair } from "../support/pair.ts";
import type { Rig } from "../support/rig.ts";
import { tlsFlags } from "../support/tls.ts";

t.setTimeout(180_000);

t.test("a guest moves there and back over TLS", async (t) => {
  const { rig, a, b, ca } = await openPair(t, { guest: { name: "sealed", workload: IDLE }, tls: true });
  const there = requireMoved(await migrate(rig, a, b, "sealed", ["--verify"]));
  t.equal(there.negotiated.tls, "TLS 1.3, peer b", "the operator sees who the peer is");
  t.match(
    b.destination.output(),
    /"caller":"TLS 1\.3, peer a at [^"]+"[^\n]*"handshake"/,
    "the log of the destination says who the caller is",
  );
  t.match(a.source.output(), /"tls":"TLS 1\.3, peer b"[^\n]*"handshake"/);
  await assertOneGuest(t, rig, { name: "sealed", at: rig.b });

  t.equal(requireMoved(await migrate(rig, b, a, "sealed")).negotiated.tls, "TLS 1.3, peer a");
  await assertOneGuest(t, rig, { name: "sealed", at: rig.a });

  const as = (ferryFlags: readonly string[]): HostAgents => ({ ...a, ferryFlags });
  await assertRefused(t, rig, as([]), "peer-unreachable", /closed the connection/);
  await assertRefused(t, rig, as(tlsFlags(ca!.files("stranger"))), "not-authorised", /^stranger at .*tls\.operators/);
  await assertRefused(t, rig, as(tlsFlags(ca!.files("b"))), "not-authorised", /^b, .*tls\.operators/);
  ca!.make("--expired", "operator");
  await assertRefused(t, rig, a, "peer-untrusted", /^The certificate of operator at \S+ expired /);
  t.match(a.source.output(), /caller refused/, "the log of the agent says so too");
  const half = await ferry(rig, as(["--tls-ca=x"]), ["guests"]);
  t.match(await half.ended, { code: 2 });
  t.match(half.output(), /--tls-certificate and --tls-key/);
});

async function assertRefused(t: Test, rig: Rig, as: HostAgents, code: string, message: RegExp): Promise<void> {
  const asked = await ferryJson<{ error: MigrationErrorView }>(rig, as, ["guests"]);
  t.equal(asked.code, 1);
  t.match(asked.answer.error, { code, message });
}
