/** Tests the file through which a guest's memory is read for `--verify`. */
import { appendFileSync, chmodSync, existsSync, renameSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { digestPages, readStretch, type SaveMemory } from "../../../../shared/runtime/guest/memory-digests.ts";
import { PAGE_SIZE } from "../../../../shared/units.ts";
import { asNobody, runAsNobody } from "../../../support/as-nobody.ts";
import { folder } from "../../../support/link-fixtures.ts";

const MEMORY = Buffer.alloc(PAGE_SIZE, "secret ");

/** Saves as QEMU's pmemsave does: it truncates a file that is there, and keeps the mode of that file. */
const save: SaveMemory = async (_from, _length, path) => writeFileSync(path, MEMORY);

t.test("only the agent's user may read the file, whatever the umask of the agent and of QEMU", async (t) => {
  const before = process.umask(0);
  t.teardown(() => process.umask(before));
  const path = join(folder(t), "m.verify");
  let mode = 0;
  const content = await readStretch(
    async (...saved) => {
      await save(...saved);
      mode = statSync(path).mode & 0o777;
    },
    0,
    PAGE_SIZE,
    path,
  );
  t.equal(mode, 0o600);
  t.ok(MEMORY.equals(content));
  t.notOk(existsSync(path), "the file is removed");
});

t.test("another user who knows the path reads no memory from it", asNobody, async (t) => {
  const open = folder(t);
  chmodSync(open, 0o755);
  let read = { status: 0 as number | null, said: "" };
  await readStretch(
    async (...saved) => {
      await save(...saved);
      read = runAsNobody("/bin/cat", saved[2]);
    },
    0,
    PAGE_SIZE,
    join(open, "m.verify"),
  );
  t.match(read.said, /Permission denied/);
  t.notMatch(read.said, /secret/);
});

t.test("a file that somebody has put at the path is neither read nor written to", async (t) => {
  const directory = folder(t);
  const path = join(directory, "m.verify");
  const other = join(directory, "other");
  writeFileSync(other, "of another guest");
  symlinkSync(other, path);
  t.ok(MEMORY.equals(await readStretch(save, 0, PAGE_SIZE, path)), "a link that was there before is removed");
  const replaced: SaveMemory = async (_from, _length, at) => {
    renameSync(at, `${at}.away`);
    symlinkSync(other, at);
  };
  await t.rejects(readStretch(replaced, 0, PAGE_SIZE, path), {
    code: "qemu-failed",
    message: /^QEMU saved 0 of 4096 bytes/,
  });
});

t.test("to save less or more than was asked for is QEMU's fault", async (t) => {
  const path = join(folder(t), "m.verify");
  for (const bytes of [0, 1, PAGE_SIZE - 1, PAGE_SIZE + 1])
    await t.rejects(
      readStretch(async () => appendFileSync(path, Buffer.alloc(bytes)), 0, PAGE_SIZE, path),
      { code: "qemu-failed", message: `QEMU saved ${bytes} of 4096 bytes to ${path}` },
    );
  t.notOk(existsSync(path));
});

t.test("other work has a turn after each 256 pages whose digests are made", async (t) => {
  let turns = 0;
  let isGoing = true;
  const turn = (): void => {
    turns++;
    if (isGoing) setImmediate(turn);
  };
  setImmediate(turn);
  const digests = await digestPages(Buffer.alloc(1024 * PAGE_SIZE));
  isGoing = false;
  t.equal(digests.length, 1024 * 16);
  t.equal(turns, 4);
});
