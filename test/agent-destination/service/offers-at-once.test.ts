/**
 * Tests offers that come at the same time: what two of them may take together, and what a guest's command may write
 * meanwhile. The command is a shell that no migration ever reaches: it ends, or is given up.
 */
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { freemem } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { DestinationAgent } from "../../../agent-destination/service/destination-agent.ts";
import type { HandshakeAnswer, Offer } from "../../../shared/protocol/messages.ts";
import type { DestinationRecord } from "../../../shared/protocol/ownership.ts";
import { loadDestinationConfig } from "../../../shared/runtime/config/config.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { loadGuest } from "../../../shared/runtime/guest/guest-definition.ts";
import { Journal } from "../../../shared/runtime/journal/journal.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../../shared/runtime/log/log.ts";
import { TestFaults } from "../../../shared/runtime/test-faults.ts";
import { eventually } from "../../support/bounded.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { offer as anyOffer } from "../../support/handshake-fixtures.ts";
import { LIMITS } from "../../support/link.ts";
import { folder } from "../../support/link-fixtures.ts";

const CALLER = { name: "alpha", names: ["alpha"], text: "alpha" };
const MIB = 2 ** 20;
const PAGE = 4096;

interface Started {
  readonly agent: DestinationAgent;
  /** The agent's clock, which moves along with real time until the test ends. */
  readonly clock: FakeClock;
  readonly runtimeDirectory: string;
  readonly journal: Journal<DestinationRecord>;
  /** Makes an offer of a guest that is defined here. */
  alike(name: "web" | "other", changes?: Partial<Offer>, memoryBytes?: number): Promise<Offer>;
}

/** How long a command may take until its QEMU answers. The command of these tests never answers. */
const START_MS = 5000;

/** Starts a destination with two guests, both of which have this command. */
async function start(t: Test, command: readonly string[]): Promise<Started> {
  const at = folder(t);
  for (const name of ["guests", "state", "run"]) mkdirSync(join(at, name), { mode: 0o700 });
  for (const name of ["web", "other"])
    writeFileSync(join(at, "guests", `${name}.json`), JSON.stringify({ name, qmp: `{runtime}/${name}.qmp`, command }));
  const places = [`--guests-directory=${at}/guests`, `--runtime-directory=${at}/run`, `--state-directory=${at}/state`];
  const config = loadDestinationConfig([...places, `--qemu-start-timeout=${START_MS}ms`, "--memory-reserve=0"], {});
  // whatever is in this journal was written by this agent, so it is a record
  const journal = await Journal.open(config.stateDirectory, (record) => record as DestinationRecord);
  const clock = new FakeClock();
  const parts = { config, clock, log: createLogger("test", "silent"), journal, limits: LIMITS };
  const agent = new DestinationAgent({ ...parts, createKernels: loadKernels, faults: new TestFaults() });
  const isOver = deferred<void>();
  void clock.walkUntil(isOver.promise);
  t.teardown(async () => {
    await agent.stop();
    isOver.resolve();
  });
  const alike: Started["alike"] = async (name, changes = {}, memoryBytes = MIB) => {
    const definitionDigest = (await loadGuest(name, config)).digest;
    const ramBlocks = [{ name: "pc.ram", byteLength: Math.floor(memoryBytes / PAGE) * PAGE, pageSize: PAGE }];
    const guest = { ...anyOffer.guest, name, definitionDigest, ramBlocks };
    return { ...anyOffer, sourceAddress: "127.0.0.1:7411", migrationId: `m-${name}`, ...changes, guest };
  };
  return { agent, clock, runtimeDirectory: config.runtimeDirectory, journal, alike };
}

/** Waits until the command of a guest runs: its log is there. */
const begun = (directory: string, guest: string): Promise<true> =>
  eventually(() => readdirSync(directory).some((file) => file.startsWith(`${guest}.qemu.log`)) || undefined, {
    timeoutMs: 60_000,
    what: `the command of ${guest}`,
  });

const codesOf = (answer: HandshakeAnswer): readonly string[] =>
  answer.kind === "contract" ? [] : answer.refusals.map(({ code }) => code);

t.test("of two offers with one id that come at the same time, one is refused", async (t) => {
  const { agent, clock, runtimeDirectory, journal, alike } = await start(t, ["sh", "-c", "exec sleep 600"]);
  // both offers look at the journal before either has written there
  journal.read = async () => undefined;
  const offers = [await alike("web", { migrationId: "m-1" }), await alike("other", { migrationId: "m-1" })];
  const answered = Promise.allSettled(offers.map((offer) => agent.handshake(offer, CALLER)));
  await Promise.race([begun(runtimeDirectory, "web"), begun(runtimeDirectory, "other")]);
  clock.jump(START_MS);
  const answers = await answered;
  const refused = answers.flatMap((answer) => (answer.status === "rejected" ? [answer.reason] : []));
  t.match(refused, [{ code: "refused", message: /already has a migration/ }]);
  t.equal(refused.length, 1);
});

/** Offers both guests with this memory, the second one while the command of the first one runs. */
async function bothAtOnce(
  { agent, clock, runtimeDirectory, alike }: Started,
  bytes: number,
): Promise<readonly string[]> {
  const first = agent.handshake(await alike("web", {}, bytes), CALLER);
  await begun(runtimeDirectory, "web");
  const second = agent.handshake(await alike("other", {}, bytes), CALLER);
  await Promise.race([second, begun(runtimeDirectory, "other")]);
  clock.jump(START_MS);
  await first;
  return codesOf(await second);
}

t.test("memory that one guest was promised is not promised to a second one", async (t) => {
  const most = Math.floor(0.6 * freemem());
  const started = await start(t, ["sh", "-c", "exec sleep 600", "-m", `${most}B`]);
  t.same(await bothAtOnce(started, most), ["free-memory"]);
});

t.test("an offer that claims more memory than its definition gives keeps no other guest out", async (t) => {
  const started = await start(t, ["sh", "-c", "exec sleep 600", "-m", "1"]);
  t.same(await bothAtOnce(started, Math.floor(0.6 * freemem())), ["qmp-unreachable"]);
});

t.test("a command that writes without end fills no more of the runtime directory than its log may have", async (t) => {
  const done = join(folder(t), "done");
  const flood = 'yes 0123456789abcdef | head -c 20000000; touch "$0"; exec sleep 600';
  const { agent, clock, runtimeDirectory, alike } = await start(t, ["sh", "-c", flood, done]);
  let most = 0;
  const look = (): void => {
    const sizes = readdirSync(runtimeDirectory).map((file) => {
      const found = statSync(join(runtimeDirectory, file), { throwIfNoEntry: false });
      return found?.isFile() === true ? found.size : 0;
    });
    most = Math.max(
      most,
      sizes.reduce((sum, size) => sum + size, 0),
    );
  };
  const answered = agent.handshake(await alike("web"), CALLER);
  const written = (): true | undefined => {
    look();
    return existsSync(done) || undefined;
  };
  await eventually(written, { timeoutMs: 120_000, everyMs: 5, what: "the end of the output" });
  clock.jump(START_MS);
  t.same(codesOf(await answered), ["qmp-unreachable"]);
  t.ok(most > 0 && most <= MIB, `${most} bytes at most`);
});
