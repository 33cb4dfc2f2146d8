/** Tests which group may use the operators' socket. */
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { operatorSocket } from "../../../../shared/runtime/agent/operator-socket.ts";
import type { CommonConfig } from "../../../../shared/runtime/config/config.ts";
import { folder } from "../../../support/link-fixtures.ts";

const IS_ROOT = process.getuid?.() === 0;

function config(at: string, operatorGroup: string, path: string | undefined = join(at, "source.sock")): CommonConfig {
  return { runtimeDirectory: at, operatorSocketPath: path, operatorGroup } as unknown as CommonConfig;
}

t.test("without a group, runtimeDirectory stays the agent's own", async (t) => {
  const at = join(folder(t), "run");
  mkdirSync(at, { mode: 0o700 });
  t.same(operatorSocket(config(at, "")), { path: join(at, "source.sock"), group: undefined });
  t.equal(statSync(at).mode & 0o777, 0o700);
  t.equal(operatorSocket({ ...config(at, ""), operatorSocketPath: undefined }), undefined);
});

t.test("members of a group get through runtimeDirectory", { skip: !IS_ROOT && "only root has a group" }, async (t) => {
  const at = join(folder(t), "run");
  mkdirSync(at, { mode: 0o700 });
  for (const [name, group] of [
    ["1234", 1234],
    ["daemon", 1],
  ] as const) {
    t.same(operatorSocket(config(at, name)), { path: join(at, "source.sock"), group });
    t.match(statSync(at), { gid: group });
    t.equal(statSync(at).mode & 0o777, 0o710);
  }
  operatorSocket(config(at, "1", "/elsewhere/source.sock"));
  t.match(statSync(at), { gid: 1 }, "a socket elsewhere does not change this directory");
});

t.test("a group that does not exist is reported", async (t) => {
  for (const name of ["no-such-group", "-x", "a b"])
    t.throws(() => operatorSocket(config(folder(t), name)), {
      code: "configuration",
      message: `operators.group is ${JSON.stringify(name)}, which is no group here`,
    });
});
