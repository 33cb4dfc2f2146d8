/**
 * Moves the demo's guest with each strategy over a fast and a slow link. The guest finds its memory whole at the
 * destination.
 */
import t from "tap";
import { STRATEGIES, type Strategy } from "../../shared/protocol/messages.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { migrate, requireMoved } from "../support/ferry-json.ts";
import { noPostcopyFrom } from "../support/other-qemu.ts";
import { openPair } from "../support/pair.ts";

t.setTimeout(300_000);

const NAME = "busy";
/** The demo's workload, on less memory. */
const WORKLOAD = { regionMiB: 64, rate: 200e6, words: 4 } as const;
const LINKS = [
  ["1 Gbit/s", 1e9],
  ["100 Mbit/s", 1e8],
] as const;
/**
 * The strategies with which the guest does not run until all of it is at the destination. With these the agents compare
 * its memory page by page as well.
 */
const VERIFIED: readonly Strategy[] = ["stop-and-copy", "precopy"];

t.test("a busy guest moves with each strategy over each link", async (t) => {
  const { rig, a, b } = await openPair(t, { guest: { name: NAME, memoryMiB: 256, workload: WORKLOAD } });
  const ways = [
    { from: a, to: b },
    { from: b, to: a },
  ] as const;
  let moves = 0;
  for (const [link, bitsPerSecond] of LINKS) {
    await rig.network.setRate(bitsPerSecond);
    for (const strategy of STRATEGIES) {
      const { from, to } = ways[moves % 2 === 0 ? 0 : 1];
      const verify = VERIFIED.includes(strategy);
      const options = ["--strategy", strategy, ...(verify ? ["--verify"] : [])];
      const run = await migrate(rig, from, to, NAME, options);
      if (!verify && noPostcopyFrom(from.host.name) !== false) {
        t.match(run.answer.error?.refusals, [{ code: "postcopy-emulated" }], `${strategy} over ${link}`);
        await assertOneGuest(t, rig, { name: NAME, at: from.host });
        continue;
      }
      moves++;
      const { result } = requireMoved(run);
      t.equal(result.verified, verify, `${strategy} over ${link}`);
      t.ok(!verify || result.pagesCompared >= 65_536, `${result.pagesCompared} pages were compared`);
      await assertOneGuest(t, rig, { name: NAME, at: to.host });
    }
  }
});
