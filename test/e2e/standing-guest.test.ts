/**
 * Ends the stream of a source QEMU right after the acknowledgement of post-copy. The guest then runs at the source
 * again, if need be by force (docs/design/post-copy.md#a-guest-that-qemu-leaves-standing).
 */
import { join } from "node:path";
import t from "tap";
import { encodeSwitchoverAck } from "../../shared/qemu/return-path/return-path.ts";
import { setSteps, startBiosGuest, type TwoSets, twoSets } from "../support/bios-guest.ts";
import { eventually } from "../support/bounded.ts";
import { relayPostcopy } from "../support/postcopy-relay.ts";
import { isStanding, startStandingGuest } from "../support/standing-guest.ts";

t.setTimeout(60_000);

const SETS: TwoSets = { cold: { from: 0x20, to: 0x90 }, hot: { from: 0x10, to: 0x20 }, hotTurns: 2 };
const WITHIN = { timeoutMs: 15_000 };
const SLOW = { "max-bandwidth": 1_000_000, "downtime-limit": 1, "avail-switchover-bandwidth": 1_000_000 };

t.test("an agent that dies right after its acknowledgement leaves a guest that can be started", async (t) => {
  const source = await startBiosGuest(twoSets(SETS));
  t.teardown(() => source.end());
  const destination = await startBiosGuest(twoSets(SETS), ["-incoming", "defer", "-S"]);
  t.teardown(() => destination.end());
  const { qmp } = source;
  await qmp.execute("migrate-set-parameters", SLOW);
  const relay = await relayPostcopy(source, destination);
  await eventually(() => relay.counts.before > SETS.hot.to || undefined, { ...WITHIN, what: "the hot pages" });
  t.notOk(await isStanding(qmp));
  await qmp.execute("migrate-start-postcopy");
  const stopped = qmp.waitFor("STOP", undefined, WITHIN);
  // QEMU sleeps for its rate limit, and finds the acknowledgement and the broken stream when it wakes
  relay.source.end(encodeSwitchoverAck(), () => relay.source.destroy());
  await stopped;
  const over = async (): Promise<string | undefined> => {
    if (await isStanding(qmp)) return "stands";
    return (await qmp.execute("query-migrate")).status === "failed" ? "failed" : undefined;
  };
  const outcome = await eventually(over, { ...WITHIN, what: "the end of the migration" });
  t.comment(`QEMU ${JSON.stringify(qmp.greeting.version)}: ${outcome}`);
  if (outcome === "stands") {
    await t.rejects(qmp.execute("cont"), { code: "qmp-command" });
    await startStandingGuest(qmp, join(source.folder, "gdb"));
  }
  t.notOk(await isStanding(qmp));
  t.match(await qmp.execute("query-status"), { status: "running", running: true });
  const before = await setSteps(source, SETS);
  const moves = async (): Promise<true | undefined> =>
    (await setSteps(source, SETS)).counters !== before.counters || undefined;
  await eventually(moves, { ...WITHIN, what: "the guest to go on" });
  await qmp.execute("stop");
  const { most, counters } = await setSteps(source, SETS);
  t.ok(most <= 1, counters);
});
