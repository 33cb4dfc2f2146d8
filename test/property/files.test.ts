/**
 * Tests that journals, guest definitions and configurations which another program wrote, or which were cut off, are
 * read correctly or refused by name.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import t from "tap";
import type { SourceRecord } from "../../shared/protocol/ownership.ts";
import { decodeDestinationRecord, decodeSourceRecord } from "../../shared/protocol/record-decoding.ts";
import { loadDestinationConfig, loadSourceConfig } from "../../shared/runtime/config/config.ts";
import { listGuests, loadGuest, parseGuest } from "../../shared/runtime/guest/guest-definition.ts";
import { Journal } from "../../shared/runtime/journal/journal.ts";
import {
  codeOf,
  deepJson,
  FILE_MS,
  forAWhile,
  forAWhileAsync,
  hostileJson,
  hostileObject,
  named,
  spoiled,
} from "../support/hostile.ts";

t.setTimeout(FILE_MS);

function folder(t: { teardown(done: () => void): unknown }): string {
  const made = mkdtempSync(join(tmpdir(), "ferry-files-"));
  t.teardown(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

const granted: SourceRecord = {
  kind: "granted",
  guest: "web",
  destination: "b:1",
  sequence: 3,
  startedAtMs: 5,
  grant: { token: "00ff", epoch: 1, paused: true },
  qemu: { pid: 7, identity: "boot/7/1" },
  retiring: true,
};

t.test("a spoiled file of the journal is read as its own record or refused by name", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, decodeSourceRecord);
  await journal.write("m", granted);
  const file = join(directory, "m.json");
  const good = readFileSync(file);
  const foreign = fc.oneof(
    spoiled([good]),
    fc.json().map((text) => Buffer.from(text)),
    hostileObject(JSON.parse(good.toString())).map((one) => Buffer.from(JSON.stringify(one))),
  );
  await forAWhileAsync(foreign, async (bytes) => {
    writeFileSync(file, bytes);
    try {
      const read = await journal.read("m");
      if (JSON.stringify(read) !== JSON.stringify(granted)) throw new Error(`read ${JSON.stringify(read)}`);
    } catch (thrown) {
      codeOf(thrown, ["state-directory"]);
    }
  });
});

t.test("a record of any shape is decoded to a complete record, or to none", async () => {
  // an earlier version wrote the process in these fields
  const older = { ...granted, qemu: undefined, qemuPid: 7, qemuProcess: "boot/7/1" };
  const records = fc.oneof(hostileObject({ ...granted }), hostileObject({ ...older }), hostileJson([granted, older]));
  forAWhile(records, (value) => {
    for (const record of [decodeSourceRecord(value), decodeDestinationRecord(value)]) {
      if (record === undefined) continue;
      if (typeof record.grant.token !== "string") throw new Error("a grant without a token");
      if (typeof record.sequence !== "number") throw new Error("a record without a place in the order");
      if (record.qemu === undefined) continue;
      if (typeof record.qemu.pid !== "number" || !record.qemu.identity) throw new Error("a process that is none");
    }
  });
});

t.test("files of the state directory that are no records are named, and the records are read", async (t) => {
  const directory = folder(t);
  const journal = await Journal.open(directory, decodeSourceRecord);
  await journal.write("good", granted);
  writeFileSync(join(directory, "big.json"), "");
  truncateSync(join(directory, "big.json"), 2 ** 33);
  writeFileSync(join(directory, "deep.json"), deepJson(200_000));
  writeFileSync(join(directory, "not an id.json"), "{}");
  writeFileSync(join(directory, "..json"), "{}");
  mkdirSync(join(directory, "folder.json"));
  symlinkSync(join(directory, "nowhere"), join(directory, "link.json"));
  execFileSync("mkfifo", [join(directory, "pipe.json")]);
  const { entries, faults } = await journal.list();
  t.same(entries, [{ id: "good", record: granted }]);
  t.equal(faults.length, 6, "a link that leads nowhere is neither a record nor a fault");
  for (const fault of faults) t.match(fault, { code: "state-directory", message: directory, advice: /./ });
});

const definition = { name: "web", qmp: "{runtime}/web.qmp", command: ["qemu-system-x86_64", "-m", "1G"] };

t.test("a guest definition of any shape can be used or is refused by name", async () => {
  const text = fc.oneof(
    hostileObject(definition).map((one) => JSON.stringify(one)),
    spoiled([Buffer.from(JSON.stringify(definition))]).map((bytes) => bytes.toString()),
    fc.json(),
    fc.constantFrom("", "null", "[]", deepJson(200_000)),
  );
  forAWhile(text, (given) => {
    named(["configuration"], () => {
      const guest = parseGuest("web", "web.json", given, "/run/ferry");
      for (const word of [guest.qmp, ...guest.command])
        if (typeof word !== "string" || word.includes("\0")) throw new Error("a word that no process takes");
      if (guest.name !== "web" || Buffer.byteLength(guest.qmp) > 107) throw new Error("another guest");
    });
  });
});

t.test("guest definitions that are no files, or are too long, are refused without being read", async (t) => {
  const guestsDirectory = folder(t);
  const places = { guestsDirectory, runtimeDirectory: "/run/$&" };
  writeFileSync(join(guestsDirectory, "web.json"), JSON.stringify(definition));
  t.equal((await loadGuest("web", places)).qmp, "/run/$&/web.qmp");
  writeFileSync(join(guestsDirectory, "big.json"), "");
  truncateSync(join(guestsDirectory, "big.json"), 2 ** 33);
  execFileSync("mkfifo", [join(guestsDirectory, "pipe.json")]);
  await t.rejects(loadGuest("big", places), {
    code: "configuration",
    message: /big\.json cannot be used.*longer than/,
  });
  await t.rejects(loadGuest("pipe", places), { code: "configuration", message: /not a regular file/ });
  t.same(
    (await listGuests(places)).map((one) => one.kind),
    ["unreadable", "unreadable", "guest"],
  );
  for (const name of ["../web", "", ".", "a/b", "\0", "x".repeat(65)])
    await t.rejects(loadGuest(name, places), { code: "invalid-argument" });
});

t.test("both agents accept a configuration file of any shape, or refuse it by name", async (t) => {
  const directory = folder(t);
  const file = join(directory, "ferry.json");
  const good = {
    listen: ["unix:/run/ferry/peers.sock"],
    guests: { directory },
    runtimeDirectory: directory,
    stateDirectory: directory,
    memory: { baseCache: "1MiB", reserve: "1MiB" },
    transfer: { frameBytes: "64KiB" },
    log: { level: "info" },
    tls: { insecure: false },
    qmp: { timeout: "10s" },
  };
  const nested = hostileObject(good.memory).map((memory) => ({ ...good, memory }));
  const given = fc.oneof(
    // hostile names of directories are left out, since the directories would be made
    hostileObject(good).map((one) => ({ ...one, runtimeDirectory: directory, stateDirectory: directory })),
    nested.map((one) => ({ ...one })),
    fc.jsonValue().filter((one) => typeof one !== "object" || one === null || Array.isArray(one)),
  );
  const texts = fc.oneof(
    given.map((one) => JSON.stringify(one)),
    fc.constantFrom("", "{", deepJson(100_000)),
  );
  forAWhile(texts, (text) => {
    writeFileSync(file, text);
    for (const load of [loadSourceConfig, loadDestinationConfig])
      named(["configuration", "invalid-argument"], () => load(["--config", file], {}));
  });
});
