/** Tests the directories of an agent, which no other user of the host may enter. */
import { chmodSync, chownSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { privateDirectory } from "../../../../shared/runtime/files/private-directory.ts";
import { asNobody, runAsNobody } from "../../../support/as-nobody.ts";
import { folder } from "../../../support/link-fixtures.ts";

const modeOf = (path: string): number => statSync(path).mode & 0o7777;

t.test("a directory that is missing is made for the agent's user alone", async (t) => {
  const made = privateDirectory("stateDirectory", join(folder(t), "a/b"));
  t.equal(modeOf(made), 0o700);
});

t.test("an empty directory that others may enter is closed to them, and keeps the rights of its group", async (t) => {
  const directory = join(folder(t), "run");
  for (const [before, after] of [
    [0o755, 0o750],
    [0o2771, 0o2770],
    [0o711, 0o710],
    [0o710, 0o710],
  ] as const) {
    mkdirSync(directory, { recursive: true });
    chmodSync(directory, before);
    privateDirectory("runtimeDirectory", directory);
    t.equal(modeOf(directory), after, before.toString(8));
  }
});

t.test("root does not take a directory away from others who have files in it", asNobody, async (t) => {
  const directory = join(folder(t), "tmp");
  mkdirSync(directory);
  chmodSync(directory, 0o1777);
  writeFileSync(join(directory, "of-somebody"), "");
  t.throws(() => privateDirectory("runtimeDirectory", directory), {
    code: "configuration",
    message: /^runtimeDirectory \/\S+ has mode 1777, so every user of this host could reach the guests/,
    advice: /^chmod o-rwx \/\S+tmp, if it is the agent's alone; else set runtimeDirectory/,
  });
  t.equal(modeOf(directory), 0o1777);
});

t.test("a directory of another user is refused, whether others may enter it or not", asNobody, (t) => {
  const directory = join(folder(t), "theirs");
  mkdirSync(directory);
  chownSync(directory, 65534, 65534);
  for (const mode of [0o701, 0o700]) {
    chmodSync(directory, mode);
    t.throws(() => privateDirectory("stateDirectory", directory), {
      code: "configuration",
      message: `stateDirectory ${directory} belongs to user 65534, who could replace whatever the agent makes in it`,
    });
  }
  t.end();
});

t.test("another user reads nothing in a directory that the agent has closed", asNobody, async (t) => {
  const outside = folder(t);
  chmodSync(outside, 0o755);
  const directory = join(outside, "run");
  mkdirSync(directory, { mode: 0o755 });
  chmodSync(directory, 0o755);
  t.equal(runAsNobody("/bin/ls", directory).status, 0, "the other user could read it before");
  privateDirectory("runtimeDirectory", directory);
  writeFileSync(join(directory, "web.qmp"), "");
  const tried = runAsNobody("/bin/cat", join(directory, "web.qmp"));
  t.match(tried.said, /Permission denied/);
  t.not(tried.status, 0);
});
