/** Tests that the end of a migration gets into the journal at last, however long its disk takes no records. */
import { writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { Journal } from "../../../../shared/runtime/journal/journal.ts";
import { writeAtLast } from "../../../../shared/runtime/journal/write-at-last.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { folder } from "../../../support/link-fixtures.ts";
import { Lines } from "../../../support/tls.ts";

/** Opens a journal whose disk takes no records until `isFull` is false, and notes when each write was tried. */
async function setUp(t: Test) {
  const clock = new FakeClock();
  const state = { isFull: true };
  const triedMs: number[] = [];
  const disk = {
    writeWhole: async (file: string, text: string): Promise<void> => {
      triedMs.push(clock.monotonicMs());
      if (state.isFull) throw new MigrationFault("state-directory", "the disk is full");
      writeFileSync(file, text);
    },
    syncDirectory: async (): Promise<void> => undefined,
  };
  const directory = folder(t);
  const journal = await Journal.open<string>(directory, (value) => String(value), disk, clock);
  const lines = new Lines();
  const leaving = new AbortController();
  const parts = { log: lines.log, leaving: leaving.signal, clock, otherwise: "the source is asked again" };
  return { clock, state, triedMs, journal, lines, leaving, parts };
}

t.test("the pauses between two tries double from one second up to half a minute", async (t) => {
  const { clock, state, triedMs, journal, lines, parts } = await setUp(t);
  await writeAtLast(journal, "m", "arrived", parts);
  t.match(lines.all, [{ level: "warn", fault: { message: /the disk is full/ }, msg: "the source is asked again" }]);
  for (const pauseMs of [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]) {
    // a write that has failed removes its file first, which takes real time
    await clock.untilWaitedFor();
    await clock.advance(pauseMs);
  }
  t.same(triedMs, [0, 1000, 3000, 7000, 15_000, 31_000, 61_000, 91_000, 121_000]);
  t.equal(lines.all.length, 1, "one line says so");
  state.isFull = false;
  await clock.untilWaitedFor();
  await clock.advance(30_000);
  await lines.next(/has taken the end/);
  t.equal(await journal.read("m"), "arrived");
  t.equal(clock.pending, 0);
});

t.test("an agent that leaves tries no more", async (t) => {
  const { clock, triedMs, journal, leaving, parts } = await setUp(t);
  await writeAtLast(journal, "m", "arrived", parts);
  leaving.abort();
  await clock.advance(3_600_000);
  t.same(triedMs, [0]);
});

t.test("of two ends of one migration, only the later one is written", async (t) => {
  const { clock, triedMs, journal, leaving, parts } = await setUp(t);
  await writeAtLast(journal, "m", "kept", parts);
  await clock.advance(500);
  await writeAtLast(journal, "m", "released", parts);
  t.same(triedMs, [0, 500]);
  await clock.advance(1000);
  t.same(triedMs, [0, 500, 1500], "nothing is tried for the first record any more");
  leaving.abort();
});
