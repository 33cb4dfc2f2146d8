/**
 * Moves a guest to and fro with `--verify`, by source agents that keep the memory of a migration for the next one and
 * by agents that do not, in turns. Both agents compare all pages of the guest in each migration, and the guest checks
 * what it has written.
 *
 *     npm run test:kept-memory [-- --migrations N]
 *
 * The guest writes by Zipf's law: the guest that once found wrong words behind migrations with kept memory wrote so
 * (docs/experiments/2026-11-28-wrong-words.md).
 */
import { argument } from "../../cli/context.ts";
import { benchmark, wholeNumber } from "../bench/arguments.ts";
import { type HostAgents, startAgents } from "../support/agents.ts";
import { migrate, requireMoved } from "../support/ferry-json.ts";
import { foundGuest } from "../support/found-guest.ts";
import { guestDefinition } from "../support/guest.ts";
import { Rig, type RigGuest } from "../support/rig.ts";

/** How many migrations there are between two starts of the agents. Each agent sends the guest in every second one. */
const MIGRATIONS_A_LIFE = 20;
const NAME = "zipf";
const WORKLOAD = { order: "zipf", regionMiB: 96, rate: 100e6 } as const;
const BEATS = { timeoutMs: 120_000 };
const SETTLE_BEATS = 5;

const { migrations } = benchmark("test:kept-memory")
  .option("--migrations <n>", "with kept memory, and as many without", argument(wholeNumber), 300)
  .parse()
  .opts<{ migrations: number }>();

async function main(rig: Rig): Promise<void> {
  const definition = guestDefinition({ name: NAME, memoryMiB: 256, workload: WORKLOAD });
  rig.writeDefinition(definition);
  let guest = await rig.startGuest(rig.a, definition);
  await guest.serial.waitForBeats(SETTLE_BEATS, BEATS);
  const done = { on: 0, off: 0 };
  let pages = 0;
  for (let life = 0; done.on < migrations || done.off < migrations; life++) {
    const keep = life % 2 === 0 ? "on" : "off";
    const options = { source: [`--memory-keep=${keep}`] };
    const agents = await Promise.all([startAgents(rig, rig.a, options), startAgents(rig, rig.b, options)]);
    for (let turn = 0; turn < MIGRATIONS_A_LIFE && done[keep] < migrations; turn++) {
      const moved = await move(rig, guest, agents);
      guest = moved.guest;
      pages += moved.pages;
      done[keep]++;
    }
    await Promise.all(agents.flatMap(({ source, destination }) => [source.stop(), destination.stop()]));
    process.stderr.write(`${done.on} migrations with kept memory, ${done.off} without\n`);
  }
  process.stdout.write(
    `${done.on} migrations with kept memory and ${done.off} without: ${pages} pages were compared and none differed; ` +
      "the guest found no wrong word\n",
  );
}

/** Moves the guest to the other host. @throws Error when a page differs, or when the guest has found a wrong word */
async function move(
  rig: Rig,
  guest: RigGuest,
  [a, b]: readonly HostAgents[],
): Promise<{ guest: RigGuest; pages: number }> {
  const [from, to] = guest.host === rig.a ? [a, b] : [b, a];
  if (from === undefined || to === undefined) throw new TypeError("no agents");
  const { result } = requireMoved(await migrate(rig, from, to, NAME, ["--verify"]));
  const there = await foundGuest(rig, to.host, NAME);
  const { errors } = await there.serial.waitForBeats(SETTLE_BEATS, BEATS);
  if (errors > 0) throw new Error(`The guest found ${errors} wrong words:\n${there.serial.corruptions().join("\n")}`);
  return { guest: there, pages: result.pagesCompared };
}

const rig = await Rig.open({ bitsPerSecond: 1e9 });
try {
  await main(rig);
} finally {
  await rig.close();
}
