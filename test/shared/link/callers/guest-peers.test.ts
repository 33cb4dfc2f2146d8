/** Tests guests that are bound to peers by their definition, between real servers and clients. */
import { join } from "node:path";
import t from "tap";
import { hasOtherPeers } from "../../../../shared/link/callers/authorise.ts";
import { limitsFor, limitsToward } from "../../../../shared/link/callers/guest-peers.ts";
import type { LinkSecurity } from "../../../../shared/link/tls/security.ts";
import { LIMITS } from "../../../support/link.ts";
import { folder } from "../../../support/link-fixtures.ts";
import { security, TestCa } from "../../../support/tls.ts";
import { destination, refusals, shake } from "../../../support/tls-servers.ts";

const own = new TestCa(folder(t)).make("alpha=127.0.0.1,localhost", "beta=127.0.0.1");
const alpha = own.material("alpha");

t.test("a guest that is bound to peers is offered to those alone, before anything of it is sent", async (t) => {
  const server = await destination(t, security(alpha));
  const limits = { ...LIMITS, security: security(own.material("beta")) };
  const bound = (peers: readonly string[]) => limitsFor({ name: "web", peers }, limits).security as LinkSecurity;
  t.same(
    await shake(t, server.address, bound(["gamma", "ALPHA"])),
    refusals,
    "the peer is listed by one name of its certificate",
  );
  t.equal(server.callers.length, 1);
  for (const peers of [["beta", "gamma"], []])
    await t.rejects(shake(t, server.address, bound(peers)), {
      code: "not-authorised",
      message: /^alpha, 127\.0\.0\.1, localhost at 127\.0\.0\.1:\d+ may not take web: .*"peers"/,
      advice: /web\.json/,
    });
  t.equal(server.callers.length, 1, "the server has heard of no other offer");
  t.equal(limitsFor({ name: "web" }, limits), limits, "a guest without a list may go to every peer");
  const clear = { ...LIMITS, security: { kind: "clear", insecure: true } } as const;
  t.throws(() => limitsFor({ name: "web", peers: ["alpha"] }, clear), {
    code: "not-authorised",
    message: /without TLS/,
  });
  const socket = `unix:${join(folder(t), "s")}`;
  await t.rejects(shake(t, socket, bound(["alpha"])), { code: "not-authorised", message: /unix:.* without TLS/ });
});

t.test("a destination dials the peer that has offered the guest, and no other peer of the list", async (t) => {
  const server = await destination(t, security(alpha));
  const limits = { ...LIMITS, security: security(own.material("beta")) };
  const toward = (...names: string[]): LinkSecurity =>
    limitsToward({ name: names[0] ?? "", names, text: "" }, limits).security as LinkSecurity;
  t.same(await shake(t, server.address, toward("gamma", "alpha")), refusals);
  const fault = { code: "not-authorised", message: /^alpha, .* is not gamma, which has offered the guest$/ };
  await t.rejects(shake(t, server.address, toward("gamma")), fault);
  await t.rejects(shake(t, `unix:${join(folder(t), "s")}`, toward("alpha")), { code: "not-authorised" });
  const clear = { ...LIMITS, security: { kind: "clear", insecure: true } } as const;
  t.equal(limitsToward({ name: "127.0.0.1", names: [], text: "" }, clear), clear, "in clear a caller has no name");
});

t.test("other peers are the listed names that are neither the caller's nor the agent's own", async (t) => {
  const caller = { name: "beta", names: ["beta", "192.0.2.2"], text: "" };
  const others = (...peers: string[]): boolean => hasOtherPeers(caller, security(alpha, { peers }));
  t.equal(others("alpha", "Beta", "127.0.0.1", "192.0.2.2"), false);
  t.equal(others("alpha", "beta", "gamma"), true);
  t.equal(hasOtherPeers(caller, { kind: "clear", insecure: true }), false);
});
