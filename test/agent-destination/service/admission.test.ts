/**
 * Tests which offers a destination takes, from whom, and that other callers neither learn nor end what is not theirs.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { DestinationAgent } from "../../../agent-destination/service/destination-agent.ts";
import type { Caller } from "../../../shared/link/link.ts";
import type { HandshakeAnswer, Offer } from "../../../shared/protocol/messages.ts";
import { decodeDestinationRecord } from "../../../shared/protocol/record-decoding.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { type DestinationConfig, loadDestinationConfig } from "../../../shared/runtime/config/config.ts";
import { loadGuest } from "../../../shared/runtime/guest/guest-definition.ts";
import { Journal } from "../../../shared/runtime/journal/journal.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../../shared/runtime/log/log.ts";
import { TestFaults } from "../../../shared/runtime/test-faults.ts";
import { eventually } from "../../support/bounded.ts";
import { startAgain } from "../../support/destination-again.ts";
import { offer as anyOffer } from "../../support/handshake-fixtures.ts";
import { LIMITS } from "../../support/link.ts";
import { placesIn } from "../../support/source-again.ts";

const ALPHA: Caller = { name: "alpha", names: ["alpha", "192.0.2.1"], text: "alpha" };
const GAMMA: Caller = { name: "gamma", names: ["gamma"], text: "gamma" };
const IN_CLEAR: Caller = { name: "192.0.2.1", names: [], text: "192.0.2.1:4711, no TLS" };
const MIB = 2 ** 20;
const TRACE = ["sh", "-c", "touch {runtime}/started"];

/** Starts a destination whose "QEMU" only leaves a trace of its start. */
async function start(t: Test, definition: object = {}, flags: readonly string[] = [], more: object = {}) {
  const places = placesIn(t, "{runtime}/web.qmp", { command: TRACE, ...definition });
  const config = { ...loadDestinationConfig([...places, ...flags], {}), ...more };
  const journal = await Journal.open(config.stateDirectory, decodeDestinationRecord);
  const parts = { config, clock: systemClock, log: createLogger("test", "silent"), journal, limits: LIMITS };
  const agent = new DestinationAgent({ ...parts, createKernels: loadKernels, faults: new TestFaults() });
  t.teardown(() => agent.stop());
  return { agent, config, hasStarted: () => existsSync(join(config.runtimeDirectory, "started")) };
}

/** Makes an offer of the very guest that is defined here. */
async function alike(config: DestinationConfig, changes: Partial<Offer> = {}): Promise<Offer> {
  const definitionDigest = (await loadGuest("web", config)).digest;
  const ramBlocks = [{ name: "pc.ram", byteLength: 1 * MIB, pageSize: 4096 }];
  const guest = { ...anyOffer.guest, definitionDigest, ramBlocks, ...changes.guest };
  return { ...anyOffer, sourceAddress: "127.0.0.1:7411", ...changes, guest };
}

const codesOf = (answer: HandshakeAnswer): readonly string[] =>
  answer.kind === "contract" ? [] : answer.refusals.map(({ code }) => code);
const textOf = (answer: HandshakeAnswer): string => JSON.stringify(answer);

t.test("an offer of another definition starts nothing, and learns nothing of the guest here", async (t) => {
  const command = [...TRACE, "-machine", "pc-secret-8.1", "-m", "77"];
  const { agent, config, hasStarted } = await start(t, { command });
  const { digest } = await loadGuest("web", config);
  for (const dryRun of [true, false]) {
    const answer = await agent.handshake({ ...anyOffer, sourceAddress: "127.0.0.1:7411", dryRun }, ALPHA);
    t.same(codesOf(answer), ["guest-definition"]);
    const told = textOf(answer);
    t.match(told, /compare web\.json .* both hosts .*DEFINITION/, "the refusal says how to compare the definitions");
    t.notMatch(told, new RegExp(`secret|77|${digest.slice(0, 6)}|${config.runtimeDirectory}`));
  }
  t.notOk(hasStarted());
  t.same(agent.desk.listMigrations(), [], "nothing was begun");
});

t.test("all reasons that are known without a QEMU are given at once, and no QEMU is started", async (t) => {
  const { agent, config, hasStarted } = await start(t, {}, ["--memory-reserve=100000GiB"]);
  const old = { protocolVersions: [99], sourceAddress: "[fe80::1%nowhere0]:7411" };
  const host = ["source-address", "protocol-version"];
  t.same(codesOf(await agent.handshake({ ...anyOffer, ...old }, ALPHA)), [...host, "guest-definition", "free-memory"]);
  t.same(codesOf(await agent.handshake(await alike(config, old), ALPHA)), [...host, "free-memory"]);
  t.notOk(hasStarted());
});

t.test("for an offer of the same definition QEMU is started", async (t) => {
  const { agent, config, hasStarted } = await start(t);
  t.same(codesOf(await agent.handshake(await alike(config), ALPHA)), ["qemu-start"]);
  t.ok(hasStarted());
});

t.test("a definition that cannot be used is not described to a caller", async (t) => {
  const { agent } = await start(t, { command: ["qemu", "-incoming", "tcp:secret:1"] });
  const answer = await agent.handshake({ ...anyOffer, sourceAddress: "127.0.0.1:7411" }, ALPHA);
  t.same(codesOf(answer), ["configuration"]);
  t.match(textOf(answer), /ferry guests/);
  t.notMatch(textOf(answer), /secret|incoming/);
});

t.test("the guest's memory is what its definition here says, when the offer claims less", async (t) => {
  const command = [...TRACE, "-m", "size=90000T"];
  const { agent, config, hasStarted } = await start(t, { command });
  const offer = await alike(config);
  const answer = await agent.handshake({ ...offer, guest: { ...offer.guest, ramBlocks: [] } }, ALPHA);
  t.same(codesOf(answer), ["free-memory"]);
  t.notOk(hasStarted());
});

t.test("a guest that is bound to peers is taken from those peers alone", async (t) => {
  const { agent, config, hasStarted } = await start(t, { peers: ["beta", "192.0.2.1"] });
  const offer = await alike(config);
  for (const caller of [GAMMA, IN_CLEAR])
    for (const asked of [offer, anyOffer]) {
      const answer = await agent.handshake(asked, caller);
      t.same(codesOf(answer), ["guest-peers"], `${caller.name}, whatever it offers`);
      t.notMatch(textOf(answer), /beta/, "the caller does not learn who may bring the guest");
    }
  t.match(textOf(await agent.handshake(offer, IN_CLEAR)), /without TLS/);
  t.notOk(hasStarted());
  t.same(
    codesOf(await agent.handshake(offer, ALPHA)),
    ["qemu-start"],
    "the list may have any name of the peer's certificate",
  );
});

t.test("a migration beyond `migrations.max` is refused before its QEMU is started", async (t) => {
  const { agent, config, hasStarted } = await start(t, {}, [], { migrationsMax: 0 });
  await t.rejects(agent.handshake(await alike(config), ALPHA), { code: "busy", message: /0 migrations under way/ });
  t.notOk(hasStarted());
});

t.test("only the caller that brought a guest ends that migration by another offer", async (t) => {
  const came = { kind: "waiting", status: "paused", source: "127.0.0.1:7411", caller: "alpha" } as const;
  const { agent, config, qemu, view, written } = await startAgain(t, came);
  const offer = await alike(config);
  const others: readonly (readonly [what: string, asked: Offer, caller: Caller])[] = [
    ["another peer", offer, GAMMA],
    ["a caller in clear with its address", offer, IN_CLEAR],
    ["a check of its own", { ...offer, dryRun: true }, ALPHA],
    ["the same peer from another address", { ...offer, sourceAddress: "127.0.0.1:7413" }, ALPHA],
  ];
  for (const [what, asked, caller] of others) {
    t.same(codesOf(await agent.handshake(asked, caller)), ["guest-busy"], what);
    t.equal(view().status, "inDoubt", "the copy waits on");
  }
  t.same(codesOf(await agent.handshake({ ...offer, guest: { ...offer.guest, definitionDigest: "00" } }, ALPHA)), [
    "guest-definition",
  ]);
  t.same([...written, ...qemu.said], [], "nothing was touched");
  t.ok(qemu.isAlive);
  // the source that began the migration offers the guest again, so it has given the migration up
  const answer = await agent.handshake(offer, ALPHA);
  t.same(codesOf(answer), ["qemu-start"]);
  await eventually(() => (qemu.isAlive ? undefined : true), { timeoutMs: 20_000, what: "the end of the copy" });
  t.equal(view().status, "failed");
});

t.test("a copy of an earlier agent, which did not write down who brought it, is ended by no offer", async (t) => {
  const { agent, config, qemu } = await startAgain(t, { kind: "waiting", status: "paused", source: "127.0.0.1:7411" });
  const answer = await agent.handshake(await alike(config), ALPHA);
  t.same(codesOf(answer), ["guest-busy"]);
  t.match(textOf(answer), /ferry list/);
  t.ok(qemu.isAlive);
});
