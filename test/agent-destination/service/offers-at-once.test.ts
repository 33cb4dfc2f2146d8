/**
 * Tests offers that come at the same time: what two of them may take together, and what a guest's command may write
 * meanwhile. The command is a shell that no migration ever reaches: it ends, or is given up.
 */
import { mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { freemem } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import t, { type Test } from "tap";
import { DestinationAgent } from "../../../agent-destination/service/destination-agent.ts";
import type { HandshakeAnswer, Offer } from "../../../shared/protocol/messages.ts";
import type { DestinationRecord } from "../../../shared/protocol/ownership.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { loadDestinationConfig } from "../../../shared/runtime/config/config.ts";
import { loadGuest } from "../../../shared/runtime/guest/guest-definition.ts";
import { Journal } from "../../../shared/runtime/journal/journal.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../../shared/runtime/log/log.ts";
import { TestFaults } from "../../../shared/runtime/test-faults.ts";
import { eventually } from "../../support/bounded.ts";
import { offer as anyOffer } from "../../support/handshake-fixtures.ts";
import { LIMITS } from "../../support/link.ts";
import { folder } from "../../support/link-fixtures.ts";

const CALLER = { name: "alpha", names: ["alpha"], text: "alpha" };
const MIB = 2 ** 20;
const PAGE = 4096;

interface Started {
  readonly agent: DestinationAgent;
  readonly runtimeDirectory: string;
  readonly journal: Journal<DestinationRecord>;
  /** Makes an offer of a guest that is defined here. */
  alike(name: "web" | "other", changes?: Partial<Offer>, memoryBytes?: number): Promise<Offer>;
}

/** Starts a destination with two guests, both of which have this command. */
async function start(t: Test, command: readonly string[], startTimeout: string): Promise<Started> {
  const at = folder(t);
  for (const name of ["guests", "state", "run"]) mkdirSync(join(at, name), { mode: 0o700 });
  for (const name of ["web", "other"])
    writeFileSync(join(at, "guests", `${name}.json`), JSON.stringify({ name, qmp: `{runtime}/${name}.qmp`, command }));
  const places = [`--guests-directory=${at}/guests`, `--runtime-directory=${at}/run`, `--state-directory=${at}/state`];
  const config = loadDestinationConfig([...places, `--qemu-start-timeout=${startTimeout}`, "--memory-reserve=0"], {});
  // whatever is in this journal was written by this agent, so it is a record
  const journal = await Journal.open(config.stateDirectory, (record) => record as DestinationRecord);
  const parts = { config, clock: systemClock, log: createLogger("test", "silent"), journal, limits: LIMITS };
  const agent = new DestinationAgent({ ...parts, createKernels: loadKernels, faults: new TestFaults() });
  // while the agent waits for a command, nothing of the agent keeps a program alive
  const alive = setInterval(() => undefined, 1000);
  t.teardown(() => {
    clearInterval(alive);
    return agent.stop();
  });
  const alike: Started["alike"] = async (name, changes = {}, memoryBytes = MIB) => {
    const definitionDigest = (await loadGuest(name, config)).digest;
    const ramBlocks = [{ name: "pc.ram", byteLength: Math.floor(memoryBytes / PAGE) * PAGE, pageSize: PAGE }];
    const guest = { ...anyOffer.guest, name, definitionDigest, ramBlocks };
    return { ...anyOffer, sourceAddress: "127.0.0.1:7411", migrationId: `m-${name}`, ...changes, guest };
  };
  return { agent, runtimeDirectory: config.runtimeDirectory, journal, alike };
}

const codesOf = (answer: HandshakeAnswer): readonly string[] =>
  answer.kind === "contract" ? [] : answer.refusals.map(({ code }) => code);

t.test("of two offers with one id that come at the same time, one is refused", async (t) => {
  const { agent, journal, alike } = await start(t, ["sh", "-c", "exec sleep 30"], "2s");
  // both offers look at the journal before either has written there
  journal.read = async () => undefined;
  const offers = [await alike("web", { migrationId: "m-1" }), await alike("other", { migrationId: "m-1" })];
  const answers = await Promise.allSettled(offers.map((offer) => agent.handshake(offer, CALLER)));
  const refused = answers.flatMap((answer) => (answer.status === "rejected" ? [answer.reason] : []));
  t.match(refused, [{ code: "refused", message: /was here before/ }]);
  t.equal(refused.length, 1);
});

/** Offers both guests with this memory, the second one while the command of the first one runs. */
async function bothAtOnce({ agent, runtimeDirectory, alike }: Started, bytes: number): Promise<readonly string[]> {
  const first = agent.handshake(await alike("web", {}, bytes), CALLER);
  const begun = (): true | undefined => readdirSync(runtimeDirectory).some((file) => /^web/.test(file)) || undefined;
  await eventually(begun, { timeoutMs: 20_000, what: "the command of the first guest" });
  const second = await agent.handshake(await alike("other", {}, bytes), CALLER);
  await first;
  return codesOf(second);
}

t.test("memory that one guest was promised is not promised to a second one", async (t) => {
  const most = Math.floor(0.6 * freemem());
  const started = await start(t, ["sh", "-c", "exec sleep 30", "-m", `${most}B`], "5s");
  t.same(await bothAtOnce(started, most), ["free-memory"]);
});

t.test("an offer that claims more memory than its definition gives keeps no other guest out", async (t) => {
  const started = await start(t, ["sh", "-c", "exec sleep 30", "-m", "1"], "2s");
  t.same(await bothAtOnce(started, Math.floor(0.6 * freemem())), ["qmp-unreachable"]);
});

t.test("a command that writes without end fills no more of the runtime directory than its log may have", async (t) => {
  const flood = "yes 0123456789abcdef | head -c 20000000; exec sleep 30";
  const { agent, runtimeDirectory, alike } = await start(t, ["sh", "-c", flood], "2s");
  let most = 0;
  let isOver = false;
  const answered = agent.handshake(await alike("web"), CALLER).finally(() => {
    isOver = true;
  });
  while (!isOver) {
    const sizes = readdirSync(runtimeDirectory).map((file) => {
      const found = statSync(join(runtimeDirectory, file), { throwIfNoEntry: false });
      return found?.isFile() === true ? found.size : 0;
    });
    most = Math.max(
      most,
      sizes.reduce((sum, size) => sum + size, 0),
    );
    await delay(5);
  }
  t.same(codesOf(await answered), ["qmp-unreachable"]);
  t.ok(most > 0 && most <= MIB, `${most} bytes at most`);
});
