/** Tests what is read of the output of a QEMU that has ended. */
import { execFileSync } from "node:child_process";
import { appendFileSync, linkSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { lastWordsIn } from "../../../agent-destination/guest/last-words.ts";
import { folder } from "../../support/link-fixtures.ts";

t.test("the end of QEMU's output is read, however long the output is", async (t) => {
  const path = join(t.testdir(), "web.qemu.log");
  t.equal(await lastWordsIn(path), "", "there is no file");
  writeFileSync(path, "");
  t.equal(await lastWordsIn(path), "");
  writeFileSync(path, "qemu: could not open disk\n");
  t.equal(await lastWordsIn(path), "qemu: could not open disk");
  writeFileSync(path, `${"ä".repeat(5000)} the end\n`);
  const words = await lastWordsIn(path);
  t.equal(words.length, 1000 - 1, "the newline at the end is cut off");
  t.match(words, /^ä+ the end$/);
  // a hole takes no room on the disk, and to read all of it would take 8 GiB of memory
  truncateSync(path, 2 ** 33);
  appendFileSync(path, "\nqemu: no space left\n");
  t.match(await lastWordsIn(path), /qemu: no space left$/);
});

t.test("a link, a second name of a file and a pipe in the guest's directory are not read", async (t) => {
  const at = folder(t);
  const secret = join(at, "secret");
  writeFileSync(secret, "a key");
  const log = join(at, "web.qemu.log");
  symlinkSync(secret, log);
  t.equal(await lastWordsIn(log), "");
  rmSync(log);
  linkSync(secret, log);
  t.equal(await lastWordsIn(log), "");
  rmSync(log);
  execFileSync("mkfifo", [log]);
  t.equal(await lastWordsIn(log), "");
});
