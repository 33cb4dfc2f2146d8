/** Tests that a file that somebody else may have put there is read within a bound, and that no pipe is waited for. */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { readSmallFile } from "../../../../shared/runtime/files/small-file.ts";
import { folder } from "../../../support/link-fixtures.ts";

t.test("a file as long as the bound is read whole, and one byte more is refused", async (t) => {
  const path = join(folder(t), "small");
  writeFileSync(path, "é".repeat(50_000));
  t.equal(await readSmallFile(path, 100_000), "é".repeat(50_000));
  await t.rejects(readSmallFile(path, 99_999), { code: "configuration", message: "It is longer than 99999 bytes" });
  writeFileSync(path, "");
  t.equal(await readSmallFile(path, 0), "");
});

t.test(
  "a file that has more bytes than the size that it shows is refused, as one that grows while it is read",
  async (t) => {
    // the kernel shows 0 as the size of such a file
    await t.rejects(readSmallFile("/proc/self/maps", 10), {
      code: "configuration",
      message: "It is longer than 10 bytes",
    });
  },
);

t.test("a pipe, a directory and a device are refused, and nothing waits for a writer", async (t) => {
  const directory = folder(t);
  const pipe = join(directory, "pipe");
  execFileSync("mkfifo", [pipe]);
  for (const path of [pipe, directory, "/dev/zero"])
    await t.rejects(readSmallFile(path, 10), { code: "configuration", message: "It is not a regular file" }, path);
  await t.rejects(readSmallFile(join(directory, "none"), 10), { code: "ENOENT" });
});
