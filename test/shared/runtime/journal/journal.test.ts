/** Tests the journal: a record is there as a whole or not at all, and a file that is no record is reported. */
import { execFileSync } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { deferred } from "../../../../shared/runtime/deferred.ts";
import { Journal } from "../../../../shared/runtime/journal/journal.ts";
import type { JournalDisk } from "../../../../shared/runtime/journal/journal-disk.ts";
import { FakeClock } from "../../../support/fake-clock.ts";

interface Note {
  kind: string;
  guest: string;
  epoch: number;
}

const decode = (value: unknown): Note | undefined =>
  typeof value === "object" && value !== null && "kind" in value ? (value as Note) : undefined;

const note = (epoch: number): Note => ({ kind: "granted", guest: "böse \u2028 guest", epoch });

function folder(t: { teardown(done: () => void): unknown }): string {
  const directory = mkdtempSync(join(tmpdir(), "ferry-journal-"));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

t.test("a record is read back by another journal on the same directory", async (t) => {
  const directory = join(folder(t), "made", "when-missing");
  const journal = await Journal.open(directory, decode);
  await journal.write("m-1", note(7));
  const second = await Journal.open(directory, decode);
  t.same(await second.read("m-1"), note(7));
  t.equal(await second.read("m-2"), undefined);
  t.same((await second.list()).entries, [{ id: "m-1", record: note(7) }]);
});

t.test("another program reads the journal without touching the files of the agent that writes", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, decode);
  await journal.write("m-1", note(1));
  await journal.prepare("m-1", note(2));
  writeFileSync(join(directory, "m-2.json"), "torn");
  const { entries, faults } = await Journal.contents(directory, decode);
  t.same(entries, [{ id: "m-1", record: note(1) }]);
  t.match(faults, [{ code: "state-directory", message: /m-2\.json is not a record/ }]);
  t.same(readdirSync(directory).sort(), ["m-1.json", "m-1.json.new", "m-2.json"]);
  await journal.write("m-1", note(2));
  t.same((await Journal.contents(directory, decode)).entries, [{ id: "m-1", record: note(2) }]);
  const missing = join(directory, "missing");
  await t.rejects(Journal.contents(missing, decode), { code: "state-directory", message: /^Cannot read .*missing/ });
  t.notOk(readdirSync(directory).includes("missing"));
});

t.test("the last of several writes at once stands, and leaves one file", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, decode);
  await Promise.all([1, 2, 3, 4, 5].map((epoch) => journal.write("m", note(epoch))));
  t.same(await journal.read("m"), note(5));
  t.same(readdirSync(directory), ["m.json"]);
});

t.test("a record that was prepared does not count until it is written, and then no other record does", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, decode);
  await journal.write("m", note(1));
  await journal.prepare("m", note(2));
  t.same(await journal.read("m"), note(1));
  t.same(await (await Journal.open(directory, decode)).read("m"), note(1), "it does not count after a crash either");
  await journal.prepare("m", note(2));
  await journal.write("m", note(2));
  t.same(await journal.read("m"), note(2));
  await journal.prepare("m", note(3));
  await journal.write("m", note(4));
  t.same(await journal.read("m"), note(4), "a record other than the prepared one is written whole");
  t.same(readdirSync(directory), ["m.json"]);
});

t.test("a prepared record is removed with its migration", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, decode);
  await journal.prepare("m", note(1));
  await journal.remove("m");
  t.same(readdirSync(directory), []);
  rmSync(directory, { recursive: true });
  await journal.prepare("m", note(1));
  await t.rejects(
    journal.write("m", note(1)),
    { code: "state-directory" },
    "the write reports what the preparation did not",
  );
});

t.test("a removed record is gone, and removing it again is no fault", async (t) => {
  const journal = await Journal.open(folder(t), decode);
  await journal.write("m", note(1));
  await journal.remove("m");
  await journal.remove("m");
  t.equal(await journal.read("m"), undefined);
});

t.test("a file cut off at any byte, or with any byte changed, is recognised", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, decode);
  await journal.write("m", note(1));
  const file = join(directory, "m.json");
  const whole = readFileSync(file);
  for (let length = 0; length < whole.length - 1; length++) {
    writeFileSync(file, whole.subarray(0, length));
    await t.rejects(journal.read("m"), { code: "state-directory" }, `${length} bytes`);
  }
  for (let at = 0; at < whole.length - 1; at++) {
    const changed = Buffer.from(whole);
    changed[at] = (changed[at] ?? 0) ^ 1;
    writeFileSync(file, changed);
    await t.rejects(journal.read("m"), { code: "state-directory" }, `byte ${at}`);
  }
});

t.test("a foreign file is reported with what to do, and the other records are still read", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, decode);
  await journal.write("a", note(1));
  await journal.write("c", note(3));
  writeFileSync(join(directory, "b.json"), readFileSync(join(directory, "a.json")));
  writeFileSync(join(directory, "README"), "not ours to judge");
  const { entries, faults } = await journal.list();
  t.same(
    entries.map((entry) => entry.id),
    ["a", "c"],
  );
  t.equal(faults.length, 1);
  t.match(faults[0], { code: "state-directory", message: /b\.json/, advice: /Find out where the guest runs/ });
});

t.test("what an interrupted write has left is removed, and the record before it stands", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, decode);
  await journal.write("m", note(1));
  writeFileSync(join(directory, "m.json.new"), "{");
  const second = await Journal.open(directory, decode);
  t.same(readdirSync(directory), ["m.json"]);
  t.same(await second.read("m"), note(1));
});

t.test(
  "a directory that cannot be written is a fault that names the file, and a later write still has its turn",
  async (t) => {
    const directory = folder(t);
    const journal = await Journal.open(directory, decode);
    rmSync(directory, { recursive: true });
    const first = journal.write("m", note(1));
    const second = journal.write("m", note(2));
    await t.rejects(first, { code: "state-directory", message: /Cannot write .*m\.json/, advice: /local disk/ });
    await t.rejects(second, { code: "state-directory" });
  },
);

t.test("an id that would leave the directory is refused", async (t) => {
  const journal = await Journal.open(folder(t), decode);
  for (const id of ["", ".", "..", "../m", "a/b", ".hidden", "x".repeat(101), "a\u0000"])
    t.throws(() => journal.write(id, note(1)), { code: "invalid-argument" }, JSON.stringify(id));
});

t.test("any JSON record is read as it was written", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open<unknown>(directory, (value) => value);
  await fc.assert(
    fc.asyncProperty(fc.jsonValue(), async (value) => {
      await journal.write("any", value);
      // -0 is written as 0, as JSON does
      return JSON.stringify(await journal.read("any")) === JSON.stringify(value);
    }),
    { numRuns: 50 },
  );
});

t.test("a fault of the journal is one that callers handle", async (t) => {
  t.type(await Journal.open("/dev/null/x", decode).catch((thrown: unknown) => thrown), MigrationFault);
});

t.test("a file that is no record stays known until it is no longer in the directory", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, decode);
  await journal.write("a", note(1));
  writeFileSync(join(directory, "torn.json"), "{");
  t.same(journal.unreadable, [], "nobody has looked yet");
  const { faults } = await journal.list();
  t.equal(faults.length, 1);
  t.same(
    journal.unreadable.map(([, fault]) => fault),
    faults,
  );
  await journal.prune(() => true, 0);
  await journal.list();
  t.match(
    journal.unreadable,
    [[/torn\.json$/, { code: "state-directory", message: /torn\.json/ }]],
    "it is still there",
  );
  rmSync(join(directory, "torn.json"));
  await journal.list();
  t.same(journal.unreadable, []);
});

/** Makes a disk that can be held up: its writes wait, in the order in which they came, until the test lets them go. */
function slowDisk(): { readonly disk: JournalDisk; readonly begun: string[]; letGo(): void } {
  const begun: string[] = [];
  const gate = deferred<void>();
  const disk: JournalDisk = {
    writeWhole: async (file, text) => {
      begun.push(text);
      await gate.promise;
      writeFileSync(file, text);
    },
    syncDirectory: async () => undefined,
  };
  return { disk, begun, letGo: () => gate.resolve() };
}

t.test("a caller that waits for a hanging disk is told, and the write is done when the disk answers", async (t) => {
  const directory = folder(t);
  const { disk, begun, letGo } = slowDisk();
  const clock = new FakeClock();
  const journal = await Journal.open(directory, decode, disk, clock);
  const told = t.rejects(journal.write("m", note(1), { withinMs: 20_000 }), {
    code: "state-directory",
    message: /m\.json: the disk has not answered for 20000 ms/,
    advice: /Look at the disk/,
  });
  await clock.advance(20_000);
  await told;
  const second = t.rejects(
    journal.write("m", note(2), { withinMs: 10_000 }),
    { code: "state-directory" },
    "the time for which the write waits for the one before it counts",
  );
  await clock.advance(10_000);
  await second;
  const third = journal.write("m", note(3));
  const other = journal.write("other", note(4), { withinMs: 10_000 });
  t.same(begun.length, 2, "one write of an id goes at a time, and another id does not wait for it");
  letGo();
  await Promise.all([third, other]);
  t.same(
    begun.map((text) => JSON.parse(text).record.epoch),
    [1, 4, 2, 3],
    "the writes go in the order in which they were asked for",
  );
  t.same(await journal.read("m"), note(3));
});

t.test("a write that is in time is not affected by its limit", async (t) => {
  const journal = await Journal.open(folder(t), decode);
  await journal.write("m", note(1), { withinMs: 60_000 });
  t.same(await journal.read("m"), note(1));
});

t.test("a file that really does not open counts as a disk that hangs", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, decode);
  const pipe = join(directory, "m.json.new");
  execFileSync("mkfifo", [pipe]);
  // opening a pipe for writing waits for a reader
  await t.rejects(journal.write("m", note(1), { withinMs: 50 }), { code: "state-directory", message: /50 ms/ });
  const next = journal.write("m", note(2));
  closeSync(openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK));
  await next;
  t.same(await journal.read("m"), note(2));
  t.same(readdirSync(directory), ["m.json"]);
});

t.test("a look at all records changes nothing of what was written while it looked", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, decode);
  for (let number = 0; number < 40; number++) await journal.write(`m-${number}`, note(1));
  for (let round = 2; round < 12; round++) {
    const later = Array.from({ length: 40 }, () => note(round));
    await Promise.all([journal.list(), ...later.map((record, number) => journal.write(`m-${number}`, record))]);
    for (const [number, record] of later.entries())
      if (journal.latest(`m-${number}`) !== record) t.fail(`m-${number} is old in round ${round}`);
  }
  const latest = journal.latest("m-0");
  await journal.list();
  t.equal(journal.latest("m-0"), latest, "and it is the same object after one more look");
});
