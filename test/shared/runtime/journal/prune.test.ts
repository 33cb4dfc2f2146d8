/** Tests which records of ended migrations a journal keeps, and that it does so while the agent runs. */
import { readdirSync, unlinkSync, utimesSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { pruneJournal } from "../../../../agent-destination/service/recovery.ts";
import type { DestinationRecord } from "../../../../shared/protocol/ownership.ts";
import { Journal } from "../../../../shared/runtime/journal/journal.ts";
import { folder } from "../../../support/link-fixtures.ts";

/** What pruneJournal() reads of a record. */
type Kind = Pick<DestinationRecord, "kind" | "heard">;

const id = (number: number): string => number.toString(16).padStart(12, "0");

t.test("refusals without end take no record of a guest that has arrived, nor one that was not heard", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, (value) => value as DestinationRecord);
  const write = async (number: number, record: Kind): Promise<void> => {
    await journal.write(id(number), record as DestinationRecord);
    // the age counts by the file's time
    utimesSync(join(directory, `${id(number)}.json`), number, number);
  };
  for (let number = 0; number < 3; number++) await write(number, { kind: "arrived" });
  await write(3, { kind: "refused" });
  for (let number = 4; number < 245; number++) await write(number, { kind: "refused", heard: true });
  await pruneJournal(journal, 50);
  t.equal(readdirSync(directory).length, 245, "a few more than are kept are not worth reading all of them");
  for (let number = 245; number < 260; number++) await write(number, { kind: "refused", heard: true });
  await pruneJournal(journal, 50);
  const left = readdirSync(directory).sort();
  const wanted = [0, 1, 2, 3, ...Array.from({ length: 200 }, (_, at) => 60 + at)];
  t.same(
    left,
    wanted.map((number) => `${id(number)}.json`),
  );
});

t.test("a record that somebody has removed does not keep the others", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, (value) => value as DestinationRecord);
  const record: Kind = { kind: "refused", heard: true };
  for (let number = 0; number < 260; number++) await journal.write(id(number), record as DestinationRecord);
  unlinkSync(join(directory, `${id(7)}.json`));
  await pruneJournal(journal, 50);
  t.equal(readdirSync(directory).length, 200);
});
