/** Tests which paths no user but root and this one can lead elsewhere. */
import { chmodSync, chownSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { untrustedBecause } from "../../../../shared/runtime/files/trusted-path.ts";
import { folder } from "../../../support/link-fixtures.ts";

const IS_ROOT = process.getuid?.() === 0;

t.test("a path of this user, in directories of this user and of root, is trusted", async (t) => {
  const at = folder(t);
  const path = join(at, "s");
  writeFileSync(path, "");
  t.equal(untrustedBecause(path), undefined, "a path below /tmp is trusted too, where only its owner moves an entry");
  symlinkSync(path, join(at, "link"));
  t.equal(untrustedBecause(join(at, "link")), undefined);
  t.equal(untrustedBecause(join(at, "none")), undefined, "a caller that dials it finds out what is missing");
  t.equal(untrustedBecause("/none/of/these"), undefined);
  t.equal(untrustedBecause("/tmp/none"), "is not there, and is in /tmp, where other users may make it");
});

t.test("a directory in which others may replace what is there is reported", async (t) => {
  const at = join(folder(t), "open");
  mkdirSync(at);
  writeFileSync(join(at, "s"), "");
  for (const mode of [0o777, 0o770, 0o707]) {
    chmodSync(at, mode);
    t.equal(untrustedBecause(join(at, "s")), `is in ${at}, where other users may replace it`, mode.toString(8));
  }
  chmodSync(at, 0o1777);
  t.equal(untrustedBecause(join(at, "s")), undefined);
});

t.test("a path of another user is reported", { skip: !IS_ROOT && "only root gives files away" }, async (t) => {
  const at = folder(t);
  const [mine, theirs] = [join(at, "mine"), join(at, "theirs")];
  for (const path of [mine, theirs]) mkdirSync(path);
  const socket = join(mine, "s");
  writeFileSync(socket, "");
  chownSync(socket, 65534, 65534);
  t.equal(untrustedBecause(socket), `has ${socket}, which belongs to user 65534`);
  chownSync(socket, 0, 0);
  symlinkSync(socket, join(theirs, "link"));
  chownSync(theirs, 65534, 65534);
  t.equal(
    untrustedBecause(join(theirs, "link")),
    `has ${theirs}, which belongs to user 65534`,
    "a link in a directory of theirs leads where they want",
  );
});
