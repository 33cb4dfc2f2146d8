/**
 * Measures the cells of a plan. It opens a rig for each length of cable and starts a guest for each workload, and all
 * contenders take turns.
 */
import { type HostAgents, startAgents } from "../../support/agents.ts";
import { guestDefinition, prepareRedisImage } from "../../support/guest.ts";
import { Rig, type RigGuest, type RigHost } from "../../support/rig.ts";
import { measureCell } from "./cell.ts";
import type { Contender } from "./contenders.ts";
import type { Journal } from "./journal.ts";
import { forGuestOf, type SuiteLink } from "./links.ts";
import { physicalLimit } from "./physical-limit.ts";
import type { Sample } from "./sample.ts";
import type { SuiteWorkload } from "./workloads.ts";

export interface Plan {
  readonly workloads: readonly SuiteWorkload[];
  readonly links: readonly SuiteLink[];
  readonly contenders: readonly Contender[];
  readonly repetitions: number;
}

interface Stage {
  readonly rig: Rig;
  readonly agents: ReadonlyMap<RigHost, HostAgents>;
}

const BOOT = { timeoutMs: 180_000 };
const BOOT_BEATS = 10;
/** The rate of the link while agents and guests are started. It does not matter to the figures. */
const LOADING_BITS = 1e9;

export async function runPlan(plan: Plan, journal: Journal): Promise<void> {
  const progress = new RunProgress(plan, journal);
  const lengths = [...new Set(plan.links.map(({ roundTripMs }) => roundTripMs))];
  for (const roundTripMs of lengths) {
    const links = plan.links.filter((link) => link.roundTripMs === roundTripMs);
    const part = { ...plan, links };
    if (isDone(part, journal)) continue;
    const rig = await Rig.open({ bitsPerSecond: LOADING_BITS, roundTripMs });
    if (rig.network.kind !== "namespaces")
      throw new Error("The suite needs root: it shapes links in network namespaces");
    try {
      const agents = new Map<RigHost, HostAgents>();
      for (const host of [rig.a, rig.b]) agents.set(host, await startAgents(rig, host, { rehearsed: true }));
      for (const workload of plan.workloads)
        if (!isDone({ ...part, workloads: [workload] }, journal))
          await runWorkload({ rig, agents }, workload, part, journal, progress);
    } finally {
      await rig.close();
    }
  }
}

async function runWorkload(
  { rig, agents }: Stage,
  workload: SuiteWorkload,
  { links, contenders, repetitions }: Plan,
  journal: Journal,
  progress: RunProgress,
): Promise<void> {
  if (workload.image === "redis") await prepareRedisImage();
  const { memoryMiB, image } = workload;
  // each guest has a name of its own, since consoles are followed by name and each guest counts its heartbeats from 0
  const name = workload.name.replaceAll(/\W+/g, "-");
  const definition = guestDefinition({
    name,
    memoryMiB,
    workload: workload.workload,
    ...(image === undefined ? {} : { image }),
  });
  rig.writeDefinition(definition);
  await rig.network.setRate(LOADING_BITS);
  let guest: RigGuest = await rig.startGuest(rig.a, definition);
  await guest.serial.waitForBeats(BOOT_BEATS, BOOT);
  if (!journal.lines.some((line) => line.kind === "limit" && line.workload === workload.name)) {
    const limit = await physicalLimit(rig, guest.host, name, memoryMiB);
    journal.add({ kind: "limit", workload: workload.name, memoryMiB, ...limit });
  }
  for (const link of links) {
    await rig.network.setRate(link.bitsPerSecond);
    for (let repetition = 1; repetition <= repetitions; repetition++)
      for (const contender of contenders) {
        const cell = { workload: workload.name, link: link.name, contender: contender.name };
        if (journal.isDone(cell, repetition)) continue;
        const watchesResidual = repetition === 1;
        const scene = { rig, guest, definition, agents, link: forGuestOf(memoryMiB, link), watchesResidual };
        const measured = await measureCell(scene, contender, workload);
        guest = measured.guest;
        const sample: Sample = { kind: "sample", repetition, ...measured.sample };
        journal.add(sample);
        progress.tell(sample);
      }
  }
  const { errors } = await guest.serial.waitForBeats(1, BOOT);
  journal.add({ kind: "check", workload: workload.name, wrongWords: errors });
  await rig.network.setRate(LOADING_BITS);
  await guest.process.stop();
}

function isDone({ workloads, links, contenders, repetitions }: Plan, journal: Journal): boolean {
  return workloads.every((workload) =>
    links.every((link) =>
      contenders.every((contender) => {
        const cell = { workload: workload.name, link: link.name, contender: contender.name };
        return Array.from({ length: repetitions }, (_, index) => index + 1).every((one) => journal.isDone(cell, one));
      }),
    ),
  );
}

/** Prints a line for each migration, which says how long the rest will take at the pace so far. */
class RunProgress {
  private readonly all: number;
  private done: number;
  private readonly first: number;
  private readonly startMs = performance.now();

  constructor({ workloads, links, contenders, repetitions }: Plan, journal: Journal) {
    this.all = workloads.length * links.length * contenders.length * repetitions;
    this.done = journal.samples.length;
    this.first = this.done;
  }

  tell(sample: Sample): void {
    this.done++;
    const minutes = (performance.now() - this.startMs) / 60e3;
    const left = (minutes / (this.done - this.first)) * Math.max(0, this.all - this.done);
    const { workload, link, contender, repetition, completed, totalSeconds, downtimeMs = 0, stallMs, bytes } = sample;
    const wrong = sample.wrongWords ? `, ${sample.wrongWords} WRONG WORDS so far` : "";
    const outcome = completed ? `${totalSeconds.toFixed(2)} s` : `not in ${totalSeconds.toFixed(0)} s`;
    process.stderr.write(
      `[${this.done}/${this.all}, ${left.toFixed(0)} min left] ${workload}, ${link}, ${contender} #${repetition}: ${outcome}, ${(bytes / 1e6).toFixed(0)} MB, down ${downtimeMs.toFixed(0)} ms, stall ${stallMs.toFixed(0)} ms${sample.slowDown === undefined ? "" : `, slowed ${(100 * sample.slowDown).toFixed(0)} %`}${wrong}\n`,
    );
  }
}
