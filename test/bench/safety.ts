/**
 * Measures what safety costs. Migrations with mutual TLS and in clear take turns, over the same link and with the same
 * guest. It also measures the copies of frames that are kept until they are acknowledged, and a write of the journal.
 * Prints a table.
 *
 *     npm run bench:safety [-- --json FILE]
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RetainedFrames } from "../../shared/link/resume/retained-frames.ts";
import type { SourceRecord } from "../../shared/protocol/ownership.ts";
import { decodeSourceRecord } from "../../shared/protocol/record-decoding.ts";
import type { Frame } from "../../shared/protocol/stream-messages.ts";
import { Journal } from "../../shared/runtime/journal/journal.ts";
import { type AgentOptions, type HostAgents, startAgents } from "../support/agents.ts";
import { measuredMigration } from "../support/ferry-run.ts";
import { guestDefinition, type Workload } from "../support/guest.ts";
import { Rig } from "../support/rig.ts";
import { TestCa, tlsFlags } from "../support/tls.ts";
import { median } from "./measure.ts";

const ROUNDS = 3;
const MEMORY_MIB = 512;
const GUESTS: readonly (readonly [name: string, workload: Workload])[] = [
  // neither deltas nor compression help, so the link limits the migration
  ["incompressible", { regionMiB: 16, fillMiB: 384, rate: 0, randomPercent: 100 }],
  // the demo's workload
  ["busy", { regionMiB: 128, rate: 200e6, words: 4 }],
];

interface Run {
  readonly seconds: number;
  readonly megabytesPerSecond: number;
  readonly downtimeMs: number;
  readonly commitMs: number;
  readonly cpuSeconds: number;
}

type Agents = readonly [HostAgents, HostAgents];

const agentsOn = async (rig: Rig, a: AgentOptions, b: AgentOptions): Promise<Agents> =>
  Promise.all([startAgents(rig, rig.a, { rehearsed: true, ...a }), startAgents(rig, rig.b, { rehearsed: true, ...b })]);

async function stopAll(agents: Agents): Promise<void> {
  await Promise.all(agents.flatMap(({ source, destination }) => [source.stop(), destination.stop()]));
}

async function move(rig: Rig, from: HostAgents, to: HostAgents, guest: string): Promise<Run> {
  const show = async (command: readonly string[], environment: Readonly<Record<string, string>>): Promise<number> => {
    const run = await rig.spawn(from.host, "ferry", command.slice(from.host.prefix.length), { environment });
    return (await run.ended).code ?? 1;
  };
  const { exitCode, totalSeconds, bytesOnWire, downtimeMs, view } = await measuredMigration(rig, {
    from,
    to,
    guest,
    show,
  });
  const { result } = view;
  if (exitCode !== 0 || result === undefined) throw new Error(`not moved: ${JSON.stringify(view.error)}`);
  return {
    seconds: totalSeconds,
    megabytesPerSecond: bytesOnWire / totalSeconds / 1e6,
    downtimeMs: downtimeMs ?? Number.NaN,
    commitMs: result.downtime.commitMs,
    cpuSeconds: result.sourceAgentCpuSeconds + result.destinationAgentCpuSeconds,
  };
}

/** Moves a guest there and back in clear and there and back with mutual TLS, in turns. */
async function compare(name: string, workload: Workload): Promise<Record<"clear" | "tls", Run[]>> {
  const rig = await Rig.open();
  try {
    const definition = guestDefinition({ name, memoryMiB: MEMORY_MIB, workload });
    rig.writeDefinition(definition);
    const guest = await rig.startGuest(rig.a, definition);
    await guest.serial.waitForBeats(5, { timeoutMs: 60_000 });
    const ca = new TestCa(join(rig.folder, "tls")).make(`a=${rig.a.address}`, `b=${rig.b.address}`, "operator");
    const secured = (side: string): AgentOptions => {
      const flags = tlsFlags(ca.files(side), { peers: "a,b", operators: "operator" });
      return { source: flags, destination: flags, ferry: tlsFlags(ca.files("operator")) };
    };
    const runs: Record<"clear" | "tls", Run[]> = { clear: [], tls: [] };
    for (let round = 0; round < ROUNDS; round++)
      for (const kind of ["clear", "tls"] as const) {
        const agents = await (kind === "tls" ? agentsOn(rig, secured("a"), secured("b")) : agentsOn(rig, {}, {}));
        const [a, b] = agents;
        runs[kind].push(await move(rig, a, b, name), await move(rig, b, a, name));
        await stopAll(agents);
        process.stderr.write(`${name}, round ${round + 1}, ${kind}\n`);
      }
    return runs;
  } finally {
    await rig.close();
  }
}

const medians = (runs: readonly Run[]): Run => {
  const of = (key: keyof Run): number => median(runs.map((run) => run[key]));
  return {
    seconds: of("seconds"),
    megabytesPerSecond: of("megabytesPerSecond"),
    downtimeMs: of("downtimeMs"),
    commitMs: of("commitMs"),
    cpuSeconds: of("cpuSeconds"),
  };
};

/** Measures how fast frames are kept and dropped, with 2 MiB of them kept at a time. @returns GB a second */
function retaining(): number {
  const body = new Uint8Array(new SharedArrayBuffer(128 << 10)).fill(7);
  const frames = new RetainedFrames(4 << 20);
  const frame: Frame = {
    kind: "frame",
    sequence: 1,
    frameKind: "pages",
    codec: "none",
    rawLength: body.length,
    checksum: new Uint8Array(8),
    body,
  };
  const rates: number[] = [];
  for (let round = 0; round < 5; round++) {
    const began = performance.now();
    for (let count = 0; count < 8000; count++) {
      frames.keep(frame);
      if (count >= 16) frames.dropOldest();
    }
    rates.push((8000 * body.length) / (performance.now() - began) / 1e6);
    for (let count = 0; count < 16; count++) frames.dropOldest();
  }
  return median(rates);
}

/** Measures how long a write of the journal takes. @returns the median, milliseconds */
async function journalMs(): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "ferry-journal-"));
  try {
    const journal = await Journal.open<SourceRecord>(folder, decodeSourceRecord);
    const record: SourceRecord = {
      kind: "granted",
      guest: "web",
      destination: "beta:7412",
      sequence: 1,
      startedAtMs: 1,
      grant: { token: "0".repeat(32), epoch: 1, paused: false },
    };
    const times: number[] = [];
    for (let count = 0; count < 100; count++) {
      const began = performance.now();
      await journal.write("0123456789ab", record);
      times.push(performance.now() - began);
    }
    return median(times);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const columns = ["", "seconds", "MB/s", "downtime ms", "commit ms", "CPU s"];
const print = (cells: readonly (string | number)[]): void => {
  const texts = cells.map((cell) => (typeof cell === "number" ? cell.toFixed(2) : cell));
  console.log(texts.map((text, index) => (index === 0 ? text.padEnd(24) : text.padStart(12))).join(""));
};

const summary: Record<string, unknown> = {};
print(columns);
for (const [name, workload] of GUESTS) {
  const runs = await compare(name, workload);
  const [clear, tls] = [medians(runs.clear), medians(runs.tls)];
  for (const [kind, run] of [
    ["clear", clear],
    ["mutual TLS", tls],
  ] as const)
    print([`${name}, ${kind}`, run.seconds, run.megabytesPerSecond, run.downtimeMs, run.commitMs, run.cpuSeconds]);
  const ratio = tls.megabytesPerSecond / clear.megabytesPerSecond;
  print([`${name}, TLS / clear`, tls.seconds / clear.seconds, ratio, tls.downtimeMs / clear.downtimeMs]);
  summary[name] = { clear, tls, throughputRatio: ratio };
}
const retained = retaining();
console.log(
  `kept until acknowledged: ${retained.toFixed(1)} GB/s, ${(12.5 / retained).toFixed(2)} % of a core at 1 Gbit/s`,
);
const written = await journalMs();
console.log(`journal write: ${written.toFixed(2)} ms; two of them are in the commit`);
summary.retainedGigabytesPerSecond = retained;
summary.journalWriteMs = written;
const file = process.argv[process.argv.indexOf("--json") + 1];
if (process.argv.includes("--json") && file !== undefined) writeFileSync(file, `${JSON.stringify(summary, null, 2)}\n`);
