/**
 * Moves the demo's guest with each strategy over a fast and a slow link, and an idle guest over the fast one. The guest
 * finds its memory whole at the destination.
 */
import t from "tap";
import { STRATEGIES, type Strategy } from "../../shared/protocol/messages.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { migrate, requireMoved } from "../support/ferry-json.ts";
import type { Workload } from "../support/guest.ts";
import { noPostcopyFrom } from "../support/other-qemu.ts";
import { IDLE, openPair } from "../support/pair.ts";

t.setTimeout(300_000);

const FAST = ["1 Gbit/s", 1e9] as const;
const SLOW = ["100 Mbit/s", 1e8] as const;
type Link = typeof FAST | typeof SLOW;
const GUESTS: readonly (readonly [name: string, workload: Workload, links: readonly Link[]])[] = [
  ["idle", { ...IDLE, fillMiB: 64 }, [FAST]],
  // the demo's workload, on less memory
  ["busy", { regionMiB: 64, rate: 200e6, words: 4 }, [FAST, SLOW]],
];
/**
 * The strategies with which the guest does not run until all of it is at the destination. With these the agents compare
 * its memory page by page as well.
 */
const VERIFIED: readonly Strategy[] = ["stop-and-copy", "precopy"];

for (const [name, workload, links] of GUESTS)
  t.test(`a guest that is ${name} moves with each strategy`, async (t) => {
    const { rig, a, b } = await openPair(t, { guest: { name, memoryMiB: 256, workload } });
    const ways = [
      { from: a, to: b },
      { from: b, to: a },
    ] as const;
    let moves = 0;
    for (const [link, bitsPerSecond] of links) {
      await rig.network.setRate(bitsPerSecond);
      for (const strategy of STRATEGIES) {
        const { from, to } = ways[moves % 2 === 0 ? 0 : 1];
        const verify = VERIFIED.includes(strategy);
        const options = ["--strategy", strategy, ...(verify ? ["--verify"] : [])];
        const run = await migrate(rig, from, to, name, options);
        if (!verify && noPostcopyFrom(from.host.name) !== false) {
          t.match(run.answer.error?.refusals, [{ code: "postcopy-emulated" }], `${strategy} over ${link}`);
          await assertOneGuest(t, rig, { name, at: from.host });
          continue;
        }
        moves++;
        const { result } = requireMoved(run);
        t.equal(result.verified, verify, `${strategy} over ${link}`);
        t.ok(!verify || result.pagesCompared >= 65_536, `${result.pagesCompared} pages were compared`);
        await assertOneGuest(t, rig, { name, at: to.host });
      }
    }
  });
