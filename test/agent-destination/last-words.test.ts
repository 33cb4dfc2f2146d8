import { appendFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { lastWordsIn } from "../../agent-destination/last-words.ts";

t.test("the last of what QEMU has written, however much that is", async (t) => {
  const path = join(t.testdir(), "web.qemu.log");
  t.equal(await lastWordsIn(path), "", "nothing is there");
  writeFileSync(path, "");
  t.equal(await lastWordsIn(path), "");
  writeFileSync(path, "qemu: could not open disk\n");
  t.equal(await lastWordsIn(path), "qemu: could not open disk");
  writeFileSync(path, `${"ä".repeat(5000)} the end\n`);
  const words = await lastWordsIn(path);
  t.equal(words.length, 1000 - 1, "but for the line's end");
  t.match(words, /^ä+ the end$/);
  // a hole takes no room on the disk, and reading all of it would take 8 GiB of memory
  truncateSync(path, 2 ** 33);
  appendFileSync(path, "\nqemu: no space left\n");
  t.match(await lastWordsIn(path), /qemu: no space left$/);
});
