/**
 * Shows why the agent stops the guest before QEMU does (docs/decisions/0024). A source QEMU whose stream breaks after
 * its last page leaves its migration: it runs the guest again if its migration had stopped the guest, and leaves the
 * guest paused if it was paused already.
 */
import t, { type Test } from "tap";
import { beginPostcopy } from "../../agent-source/guest/qemu-settings.ts";
import { encodeSwitchoverAck } from "../../shared/qemu/return-path/return-path.ts";
import { type BiosGuest, startBiosGuest, type TwoSets, twoSets } from "../support/bios-guest.ts";
import { eventually } from "../support/bounded.ts";
import { relayPostcopy } from "../support/postcopy-relay.ts";

t.setTimeout(60_000);
const SETS: TwoSets = { cold: { from: 0x20, to: 0x90 }, hot: { from: 0x10, to: 0x20 }, hotTurns: 2 };
const WITHIN = { timeoutMs: 15_000 };
const SLOW = { "max-bandwidth": 1_000_000, "downtime-limit": 1, "avail-switchover-bandwidth": 1_000_000 };

/**
 * Reads the stream of a source to its END, delivers nothing and breaks the stream. @returns the run state of the source
 * QEMU afterwards
 */
async function broken(t: Test, begin: (source: BiosGuest) => Promise<unknown>): Promise<string> {
  const source = await startBiosGuest(twoSets(SETS));
  t.teardown(() => source.end());
  const destination = await startBiosGuest(twoSets(SETS), ["-incoming", "defer", "-S"]);
  t.teardown(() => destination.end());
  await source.qmp.execute("migrate-set-parameters", SLOW);
  const relay = await relayPostcopy(source, destination, { hold: true });
  await eventually(() => relay.counts.before > SETS.hot.to || undefined, { ...WITHIN, what: "the hot pages" });
  await begin(source);
  relay.source.write(encodeSwitchoverAck());
  await eventually(() => relay.log.includes("end") || undefined, { ...WITHIN, what: "the end of the stream" });
  relay.source.destroy();
  const left = async (): Promise<true | undefined> =>
    (await source.qmp.execute("query-migrate")).status === "failed" || undefined;
  await eventually(left, { ...WITHIN, what: "the source to leave its migration" });
  return (await source.qmp.execute("query-status")).status;
}

t.test("QEMU runs a guest again that its migration had stopped, although the guest may run elsewhere", async (t) => {
  t.equal(await broken(t, (source) => source.qmp.execute("migrate-start-postcopy")), "running");
});

t.test("QEMU leaves a guest paused that was stopped before its migration would have stopped it", async (t) => {
  t.equal(await broken(t, (source) => beginPostcopy(source.qmp, () => undefined)), "paused");
});
