/**
 * Moves a guest between two real QEMUs through the project's readers and writers of post-copy, without agents. The
 * destination gets the memory with which the source was stopped, and a guest that runs before its pages have come gets
 * the pages that it asks for.
 */
import t, { type Test } from "tap";
import { encodeSwitchoverAck } from "../../shared/qemu/return-path/return-path.ts";
import { encodePing } from "../../shared/qemu/stream/command-encoder.ts";
import { type BiosGuest, type Pages, setSteps, startBiosGuest, type TwoSets, twoSets } from "../support/bios-guest.ts";
import { eventually } from "../support/bounded.ts";
import { readMemory } from "../support/guest-memory.ts";
import { type PostcopyRelay, relayPostcopy } from "../support/postcopy-relay.ts";

t.setTimeout(120_000);

const HOT: Pages = { from: 0x10, to: 0x20 };
const SETS: TwoSets = { cold: { from: 0x20, to: 0x90 }, hot: HOT, hotTurns: 2 };
const LOW_END = 0xa0000;
const HIGH_START = 0x100000;
const HIGH_BYTES = 15 << 20;
const WITHIN = { timeoutMs: 20_000 };
/**
 * QEMU's limits for a slow migration, so that most of the first pass is left when the hot pages were sent. A QEMU that
 * finds nothing left completes as precopy, whatever was asked of it, and a small guest may have changed nothing between
 * two looks.
 */
const SLOW = { "max-bandwidth": 1_000_000, "downtime-limit": 1, "avail-switchover-bandwidth": 1_000_000 };
/** QEMU's limits with which precopy may complete, however much is left. */
const PRECOPY = { "max-bandwidth": 0, "downtime-limit": 2_000_000, "avail-switchover-bandwidth": 0 };

interface Moved {
  readonly source: BiosGuest;
  readonly destination: BiosGuest;
  readonly relay: PostcopyRelay;
}

async function begin(t: Test, hold: boolean): Promise<Moved> {
  const program = twoSets(SETS);
  const source = await startBiosGuest(program);
  t.teardown(() => source.end());
  const destination = await startBiosGuest(program, ["-incoming", "defer", "-S"]);
  t.teardown(() => destination.end());
  await source.qmp.execute("migrate-set-parameters", SLOW);
  return { source, destination, relay: await relayPostcopy(source, destination, { hold }) };
}

const completed = async ({ qmp }: BiosGuest, status = "completed"): Promise<true | undefined> =>
  (await qmp.execute("query-migrate")).status === status || undefined;

async function bothCompleted({ source, destination }: Moved): Promise<void> {
  await eventually(() => completed(source), { ...WITHIN, what: "the source's end" });
  await eventually(() => completed(destination), { ...WITHIN, what: "the destination's end" });
}

async function compare(t: Test, { source, destination }: Moved): Promise<void> {
  for (const [from, length] of [
    [0, LOW_END],
    [HIGH_START, HIGH_BYTES],
  ] as const) {
    const [left, right] = [
      await readMemory(source.qmp, from, length, source),
      await readMemory(destination.qmp, from, length, destination),
    ];
    t.ok(left.equals(right), `memory from ${from.toString(16)} on is the same`);
  }
}

t.test("after post-copy a paused destination has the memory with which the source was stopped", async (t) => {
  const moved = await begin(t, false);
  const { source, destination, relay } = moved;
  await eventually(() => relay.counts.before > HOT.to || undefined, { ...WITHIN, what: "the hot pages" });
  await source.qmp.execute("migrate-start-postcopy");
  relay.source.write(encodeSwitchoverAck());
  await bothCompleted(moved);
  t.strictSame(
    relay.log.filter((word) => word !== "pong 3" && !word.startsWith("shut")),
    ["ping 1", "stopped", "ping 2", "package", "ping 4", "ramEnd", "end"],
  );
  t.ok(relay.log.includes("pong 3"), "the ping of the package was answered by the destination's QEMU");
  t.equal(relay.log.at(-1), "shut 0");
  t.ok(relay.counts.discarded >= HOT.to - HOT.from);
  t.equal(relay.counts.twice, 0);
  t.match(await destination.qmp.execute("query-status"), { status: "paused", running: false });
  t.match(await source.qmp.execute("query-status"), { status: "postmigrate", running: false });
  await compare(t, moved);
});

t.test("in post-copy a guest that runs before its pages have come gets the pages that it asks for", async (t) => {
  const moved = await begin(t, true);
  const { source, destination, relay } = moved;
  await eventually(() => relay.counts.before > HOT.to || undefined, { ...WITHIN, what: "the hot pages" });
  await source.qmp.execute("migrate-start-postcopy");
  relay.source.write(encodeSwitchoverAck());
  await eventually(() => relay.log.includes("pong 3") || undefined, { ...WITHIN, what: "the package to be loaded" });
  const paused = async (): Promise<true | undefined> =>
    (await destination.qmp.execute("query-status")).status === "paused" || undefined;
  await eventually(paused, { ...WITHIN, what: "RUN to be carried out" });
  t.equal((await source.qmp.execute("query-migrate")).status, "postcopy-active");
  t.equal((await destination.qmp.execute("query-migrate")).status, "postcopy-active");
  relay.destination.write(encodePing(5));
  await eventually(() => relay.log.includes("pong 5") || undefined, {
    ...WITHIN,
    what: "a ping outside of the package",
  });
  t.equal(relay.counts.after, 0);
  await destination.qmp.execute("cont");
  // each of these pages is missing: the guest has written it since it was sent
  await eventually(() => relay.counts.requests >= HOT.to - HOT.from || undefined, { ...WITHIN, what: "requests" });
  relay.release();
  await bothCompleted(moved);
  t.equal(relay.counts.twice, 0);
  await destination.qmp.execute("stop");
  const { most, counters } = await setSteps(destination, SETS);
  t.ok(most <= 1, counters);
});

t.test("a migration with the capability postcopy-ram that needs no post-copy completes as precopy", async (t) => {
  const moved = await begin(t, false);
  const { source, destination, relay } = moved;
  await eventually(() => relay.counts.before > HOT.to || undefined, { ...WITHIN, what: "the hot pages" });
  relay.source.write(encodeSwitchoverAck());
  await source.qmp.execute("migrate-set-parameters", PRECOPY);
  await bothCompleted(moved);
  t.strictSame(relay.log, ["ping 1", "stopped", "ramEnd", "end", "shut 0"]);
  t.match(await destination.qmp.execute("query-status"), { status: "paused" });
  await compare(t, moved);
});
