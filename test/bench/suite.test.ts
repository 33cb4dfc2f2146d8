/**
 * Tests what the suite computes from samples, without a guest: medians, bars, the journal, the table and the report.
 */
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import type { Beat } from "../support/serial.ts";
import { judge } from "./suite/bars.ts";
import { slowDownIn } from "./suite/cell.ts";
import { Journal } from "./suite/journal.ts";
import { forGuestOf, LINKS } from "./suite/links.ts";
import { reportOf } from "./suite/report.ts";
import { residualOf } from "./suite/residual.ts";
import type { HeaderLine, LimitLine, Line, Sample } from "./suite/sample.ts";
import { machineText, physicalSeconds, spreadOf, summarise } from "./suite/summary.ts";
import { tableOf } from "./suite/table.ts";

const header: HeaderLine = {
  kind: "header",
  suite: "smoke",
  startedAt: "2026-11-27T00:00:00.000Z",
  commit: "abc",
  processor: "a processor",
  processors: 2,
  qemu: "10.0.2",
  accelerator: "tcg",
};
const limit: LimitLine = { kind: "limit", workload: "sparse", memoryMiB: 512, uniquePages: 10, compressedBytes: 125e6 };

const sample = (contender: string, changes: Partial<Sample> = {}): Sample => ({
  kind: "sample",
  workload: "sparse",
  link: "1Gbit",
  contender,
  repetition: 1,
  completed: true,
  totalSeconds: 2,
  downtimeMs: 30,
  stallMs: 20,
  bytes: 200e6,
  slowDown: 0.02,
  cpuSeconds: { "source QEMU": 1, "destination QEMU": 1, "source agent": 0.5, "destination agent": 0.5 },
  peakBytes: { "source agent": 200e6, "destination agent": 100e6 },
  ...changes,
});

const verdictsOf = (lines: readonly Line[]): Map<string, { met: boolean; text: string }> =>
  new Map(judge(lines).map(({ bar, met, text }) => [bar, { met, text }]));

t.test("spreadOf() gives the median, which for an even number is the mean of the two in the middle", async (t) => {
  t.same(spreadOf([3, undefined, 1, 2]), { median: 2, least: 1, most: 3 });
  t.same(spreadOf([4, 1, 2, 3]), { median: 2.5, least: 1, most: 4 });
  t.ok(Number.isNaN(spreadOf([]).median));
});

t.test("the table says how fast the machine was if that was measured", async (t) => {
  t.equal(machineText([header, sample("ferry")]), "");
  const lines = [header, ...[500, 300, 400].map((machineMBps) => sample("ferry", { machineMBps }))];
  t.match(machineText(lines), /400 MB\/s .*\(300–500;/);
  t.match(tableOf(lines), machineText(lines));
});

t.test("a guest of eight times the memory gets eight times the limit, and a smaller guest no less", async (t) => {
  const link = LINKS.get("1Gbit");
  if (link === undefined) throw new Error("there is no such link");
  t.same(
    [256, 512, 4096].map((memoryMiB) => forGuestOf(memoryMiB, link).limitSeconds),
    [15, 15, 120],
  );
});

t.test("a cell has come to its end if all of its repetitions have", async (t) => {
  const [one, other] = summarise([
    header,
    sample("ferry", { totalSeconds: 1 }),
    sample("qemu precopy"),
    sample("ferry", { repetition: 2, totalSeconds: 3 }),
    sample("qemu precopy", { repetition: 2, completed: false }),
  ]);
  t.match(one, { contender: "ferry", completed: true, totalSeconds: { median: 2, least: 1, most: 3 } });
  t.match(other, { contender: "qemu precopy", completed: false });
  t.equal(physicalSeconds(limit, 1e9), 1);
});

t.test(
  "judge() compares Ferry with the best QEMU that comes to its end, and each verdict has its figures",
  async (t) => {
    const verdicts = verdictsOf([
      header,
      sample("qemu precopy", { completed: false, totalSeconds: 0.1, bytes: 1 }),
      sample("qemu xbzrle", { totalSeconds: 3, bytes: 300e6, downtimeMs: 10 }),
      sample("qemu postcopy", { totalSeconds: 2, bytes: 200e6, downtimeMs: 40 }),
      sample("ferry", { totalSeconds: 1.5, bytes: 150e6, downtimeMs: 61 }),
    ]);
    t.same(verdicts.get("total time"), { met: true, text: "0.75 x qemu postcopy, at most 0.8" });
    t.same(verdicts.get("total time beside xbzrle"), { met: true, text: "0.50 x qemu xbzrle, at most 0.5" });
    t.same(verdicts.get("bytes"), { met: false, text: "0.75 x qemu postcopy, at most 0.7" });
    t.match(verdicts.get("downtime beside QEMU's least"), { met: false, text: /^61 ms, qemu xbzrle 10 ms/ });
    t.match(verdicts.get("downtime"), { met: false });
  },
);

t.test("judge() judges auto if auto was measured, and a Ferry that comes to no end meets no bar", async (t) => {
  const qemu = sample("qemu xbzrle", { totalSeconds: 3 });
  t.match(verdictsOf([qemu, sample("ferry"), sample("ferry auto", { totalSeconds: 9 })]).get("total time"), {
    text: /^3\.00 x/,
  });
  const never = verdictsOf([qemu, sample("ferry", { completed: false })]).get("total time");
  t.same(never, { met: false, text: "ferry came to no end" });
});

t.test("a fast link, CPU time and the guest's slow-down have bars of their own", async (t) => {
  const verdicts = verdictsOf([
    sample("qemu precopy", { link: "unshaped", totalSeconds: 1, slowDown: 0.01 }),
    sample("ferry", { link: "unshaped", totalSeconds: 1.3, slowDown: 0.07 }),
    sample("ferry no zstd", { link: "unshaped", movedBytes: 1e9 }),
  ]);
  t.same(verdicts.get("total time"), { met: false, text: "1.30 x qemu precopy, at most 1.2" });
  t.match(verdicts.get("source agent's CPU time without zstd"), { met: true, text: /^0\.50 CPU s a GB/ });
  t.match(verdicts.get("the guest's slow-down"), { met: false, text: /^7 %, qemu precopy 1 %/ });
});

t.test("the use of a long link is measured from the first to the last report of copied bytes", async (t) => {
  const point = (seconds: number, sentBytes: number) => ({ seconds, bytes: 1, sentBytes });
  const residual = [point(0.1, 0), point(0.5, 1e6), point(1.5, 115e6)];
  const verdicts = verdictsOf([
    sample("ferry", { workload: "incompressible", link: "1Gbit+20ms", residual }),
    sample("qemu precopy", { workload: "incompressible", link: "1Gbit+20ms" }),
  ]);
  t.match(verdicts.get("use of a long link"), { met: true, text: /^0\.91 of the link/ });
});

t.test("slowDownIn() compares the guest's own work with its rate before the migration", async (t) => {
  const beat = (index: number, pages: number): Beat => ({
    ...{ beat: index, monoUs: 0, wallUs: 0, longestGapUs: 0, errors: 0, rate: 0, wordsChecked: 0, appCommands: 0 },
    ...{ pages, seenAtMs: 100 * index },
  });
  const beats = Array.from({ length: 31 }, (_, index) =>
    beat(index, index <= 10 ? 10 * index : 100 + 5 * (index - 10)),
  );
  const work = ({ pages }: Beat): number => pages;
  t.equal(slowDownIn(beats, work, 1000, 2000)?.toFixed(3), "0.500");
  t.equal(
    slowDownIn(beats, () => 7, 1000, 2000),
    undefined,
    "a guest that does no work has no slow-down",
  );
});

t.test("residualOf() reads Ferry's progress from its lines, for the time in which it copies", async (t) => {
  const line = (status: string, elapsedSeconds: number) =>
    JSON.stringify({
      status,
      progress: { elapsedSeconds, estimatedResidualBytes: 5, heatClasses: [1, 2], bytesSent: 9 },
    });
  t.same(residualOf(`${line("preparing", 0)}\nnoise\n${line("copying", 1)}\n${line("moved", 2)}\n`), [
    { seconds: 1, bytes: 5, heat: [1, 2], sentBytes: 9 },
  ]);
});

t.test(
  "a journal resumes a run where it ended, also after half a line, and a cell that did not converge is done",
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "ferry-suite-"));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const path = join(folder, "made", "smoke.jsonl");
    const first = new Journal(path, header, true);
    first.add(sample("ferry"));
    first.add(sample("qemu precopy", { completed: false }));
    appendFileSync(path, '{"kind":"sam');
    const again = new Journal(path, header, true);
    t.equal(again.samples.length, 2);
    t.ok(again.isDone(sample("ferry"), 1));
    t.notOk(again.isDone(sample("ferry"), 2));
    t.ok(again.isDone(sample("qemu precopy"), 3));
    again.add(sample("ferry", { repetition: 2 }));
    t.equal(new Journal(path, header, true).samples.length, 3, "the half line did not swallow the line after it");
    t.equal(new Journal(path, header, false).samples.length, 0);
  },
);

t.test("the table and the report name every cell, also those that came to no end", async (t) => {
  const lines = [
    header,
    limit,
    sample("qemu precopy", { completed: false, totalSeconds: 15 }),
    sample("ferry", { residual: [{ seconds: 1, bytes: 2, heat: [1] }] }),
  ];
  const table = tableOf(lines);
  t.match(table, /sparse over 1Gbit \(physical limit: 125 MB, 1\.00 s\)/);
  t.match(table, /qemu precopy +not in 15 s/);
  t.match(table, /ferry +2\.00 s \(2\.00–2\.00\)/);
  const report = reportOf(lines, judge(lines));
  for (const part of ["<h1>Ferry beside QEMU: smoke</h1>", "qemu precopy", "a processor", "<svg"])
    t.ok(report.includes(part), part);
});
