/**
 * Floods both agents a little while a guest moves between them: nothing fails. The large flood is `npm run
 * test:floods`.
 */
import t from "tap";
import { startFlood, TAKEN_OVER } from "../flood/measure.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { ferryJson, migrate, requireMoved } from "../support/ferry-json.ts";
import { IDLE, openPair } from "../support/pair.ts";
import { PROMISED_MIB, peakMebibytes } from "../support/promised-memory.ts";

t.setTimeout(300_000);
const SIZE = { connections: 400, messages: 2000, seconds: 5 };

t.test("a guest moves while strangers and a peer that was taken over flood both agents", async (t) => {
  const pair = await openPair(t, {
    guest: { name: "flooded", workload: IDLE },
    rig: { network: "loopback" },
    tls: true,
    morePeers: [TAKEN_OVER],
  });
  const { rig, a, b } = pair;
  const flood = startFlood(pair, a, b, SIZE);
  requireMoved(await migrate(rig, a, b, "flooded"));
  for (const { connections, messages, answered } of await flood) {
    t.ok(
      connections >= SIZE.connections / 2 && messages >= SIZE.messages / 2,
      "the whole flood of this agent was sent",
    );
    t.ok(answered > 0, "the agent has answered some of it");
  }
  await assertOneGuest(t, rig, { name: "flooded", at: rig.b });
  t.equal((await ferryJson(rig, b, ["guests"])).code, 0, "an operator is still answered");
  for (const [agent, promised] of [
    [a.source, PROMISED_MIB.source],
    [b.destination, PROMISED_MIB.destination],
  ] as const) {
    const lines = agent.output().split("\n");
    t.ok(
      lines.filter((line) => line.includes('"caller refused"')).length <= 4 * 60,
      "the lines about refused callers in its log are bounded",
    );
    t.ok(
      lines.some((line) => line.includes('"caller refused"')),
      "its log tells of refused callers",
    );
    t.ok(peakMebibytes(agent) <= promised, `${peakMebibytes(agent)} MiB at most, of ${promised}`);
  }
});
