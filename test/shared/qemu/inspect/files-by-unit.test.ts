/**
 * Tests the list of open files that a guest's unit leaves. Both agents of a host may want the list at the same time.
 */
import { existsSync, readdirSync } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import t from "tap";
import { look } from "../../../../shared/qemu/inspect/files-by-unit.ts";
import { deferred } from "../../../../shared/runtime/deferred.ts";
import { eventually } from "../../../support/bounded.ts";
import { folder } from "../../../support/link-fixtures.ts";

const LIST = "/run\n64 12 0 0 regular file\nlock:\t1: POSIX ADVISORY READ\nend\n";

t.test("two agents that look at once each read a whole list, although each removes the other's", async (t) => {
  const directory = folder(t);
  const path = join(directory, "open-files");
  let made = 0;
  /** Makes the list as the unit does: whole at once, in place of the list before. */
  const make = async (): Promise<undefined> => {
    const part = `${path}.${made++}`;
    await writeFile(part, LIST);
    await rename(part, path);
  };
  // the second agent removes the list in the moment between its making and its reading by the first agent
  const isRead = deferred<void>();
  let other: ReturnType<typeof look> | undefined;
  const first = look(path, async () => {
    await make();
    if (other !== undefined) return undefined;
    other = look(path, () => isRead.promise.then(make));
    await eventually(() => !existsSync(path) || undefined, { timeoutMs: 30_000, what: "the removal of the list" });
    return undefined;
  });
  t.match(await first, { folder: "/run", inodes: new Set(["64:12"]) });
  isRead.resolve();
  t.match(await other, { folder: "/run", inodes: new Set(["64:12"]) });
  t.equal(made, 3, "the first agent has looked again");
  t.same(readdirSync(directory), [], "no list is left");
});

t.test("a unit that complains, or leaves no list again and again, has shown nothing", async (t) => {
  const path = join(folder(t), "open-files");
  t.equal(await look(path, async () => "Access denied"), undefined);
  let times = 0;
  const nothing = async (): Promise<undefined> => void times++;
  t.equal(await look(path, nothing), undefined);
  t.equal(times, 5);
});
