/**
 * `npm run test:floods [-- --rounds N] [--no-flood]` moves a guest back and forth over TLS on the loopback, in turns
 * with a flood of both agents and without one. It prints a table, and fails if the agents' memory does not stay within
 * its promise, a migration fails, or not all of the flood was sent. Speed and stalls are only figures: they depend on
 * what else the machine does.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { median } from "../bench/measure.ts";
import { openPair } from "../support/pair.ts";
import { PROMISED_MIB, peakMebibytes } from "../support/promised-memory.ts";
import { TAKEN_OVER, type Turn, turn } from "./measure.ts";

/** How many connections and messages all floods have together: those of issue 22. */
const CONNECTIONS = 10_000;
const MESSAGES = 100_000;
/** How long a flood lasts, seconds: about as long as a migration takes. */
const SECONDS = 10;
const GUEST = "flooded";
/** The migrations are slowed down, so that neither a processor nor the machine's memory limits them. */
const FLAGS = ["--bandwidth", "200Mbit"];

const { values } = parseArgs({
  // with --no-flood the program measures what the agents take by themselves
  options: { rounds: { type: "string", default: "4" }, "no-flood": { type: "boolean", default: false } },
});
const rounds = Number(values.rounds);
const size = { connections: CONNECTIONS / rounds, messages: MESSAGES / rounds, seconds: SECONDS, isYielding: true };
const load = (): string => readFileSync("/proc/loadavg", "utf8").split(" ").slice(0, 3).join(" ");

const teardowns: (() => unknown)[] = [];
const failures: string[] = [];
try {
  const pair = await openPair(
    { teardown: (done) => void teardowns.push(done) },
    {
      guest: {
        name: GUEST,
        memoryMiB: 384,
        workload: { regionMiB: 16, fillMiB: 192, rate: 1e6, randomPercent: 100 },
      },
      rig: { network: "loopback" },
      tls: true,
      morePeers: [TAKEN_OVER],
      a: { rehearsed: true, source: ["--log-level=debug"], destination: ["--log-level=debug"] },
      b: { rehearsed: true, source: ["--log-level=debug"], destination: ["--log-level=debug"] },
    },
  );
  const { a, b } = pair;
  console.log(`load before: ${load()}`);
  const turns: { quiet: Turn[]; flooded: Turn[] } = { quiet: [], flooded: [] };
  const both = [
    [a, b],
    [b, a],
  ] as const;
  // the first migration in each direction is no measurement: what it needs is compiled and read for the first time
  for (const way of both) await turn(pair, way, { guest: GUEST, flags: FLAGS, size: undefined });
  for (let round = 0; round < rounds; round++) {
    // which of the two comes first changes from round to round, and so does the direction of each
    const flooded = [false, true, true, false][(2 * (round % 2)) % 4] ?? false;
    for (const [index, withFlood] of [flooded, !flooded].entries()) {
      const way = both[index % 2] ?? both[0];
      const seen = await turn(pair, way, {
        guest: GUEST,
        flags: FLAGS,
        size: withFlood && !values["no-flood"] ? size : undefined,
      });
      turns[withFlood ? "flooded" : "quiet"].push(seen);
      console.log(
        [
          withFlood ? "flooded" : "quiet  ",
          `${(seen.totalMs / 1000).toFixed(2)} s`,
          `downtime ${seen.downtimeMs.toFixed(0)} ms`,
          `stall source ${seen.sourceStallMs.toFixed(0)} ms, destination ${seen.destinationStallMs.toFixed(0)} ms`,
          `memory so far source ${peakMebibytes(way[0].source).toFixed(0)} MiB, destination ${peakMebibytes(way[1].destination).toFixed(0)} MiB`,
          `load ${load()}`,
          JSON.stringify(seen.flood),
        ].join("  "),
      );
    }
  }
  const sent = turns.flooded.flatMap(({ flood }) => flood);
  const sum = (key: "connections" | "messages" | "answered"): number => sent.reduce((all, one) => all + one[key], 0);
  console.log(`sent: ${sum("connections")} connections, ${sum("messages")} messages, ${sum("answered")} answered`);
  if (!values["no-flood"] && (sum("connections") < CONNECTIONS || sum("messages") < MESSAGES))
    failures.push("not all of the flood was sent");
  for (const key of ["totalMs", "downtimeMs", "sourceStallMs", "destinationStallMs"] as const) {
    const of = (which: readonly Turn[]): number[] => which.map((one) => one[key]);
    const [quiet, flooded] = [of(turns.quiet), of(turns.flooded)];
    const change = (100 * (median(flooded) / median(quiet) - 1)).toFixed(1);
    console.log(
      `${key}: median ${median(quiet).toFixed(0)} quiet, ${median(flooded).toFixed(0)} flooded (${change} %); most ${Math.max(...quiet).toFixed(0)} and ${Math.max(...flooded).toFixed(0)}`,
    );
  }
  for (const [name, agents] of Object.entries({ a, b })) {
    const memory = [
      ["source", peakMebibytes(agents.source), PROMISED_MIB.source],
      ["destination", peakMebibytes(agents.destination), PROMISED_MIB.destination],
    ] as const;
    for (const [role, peak, promised] of memory) {
      console.log(`memory of the ${role} agent on ${name}: ${peak.toFixed(0)} MiB at most, of ${promised}`);
      if (peak > promised) failures.push(`the ${role} agent on ${name} took more memory than is promised`);
    }
    const lines = [agents.source, agents.destination].map((one) => one.output().split("\n"));
    console.log(
      `log of the agents on ${name}: ${lines.map((all) => all.filter((line) => !line.includes('"event loop"')).length).join(" and ")} lines`,
    );
  }
} finally {
  for (const done of teardowns.reverse()) await done();
}
for (const failure of failures) console.error(failure);
process.exitCode = failures.length === 0 ? 0 : 1;
