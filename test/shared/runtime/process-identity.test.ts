import { spawn } from "node:child_process";
import { once } from "node:events";
import t from "tap";
import { identify } from "../../../shared/runtime/process-identity.ts";

t.test("a process has one identity while it lives, and none afterwards", async (t) => {
  const child = spawn(process.execPath, ["-e", "process.stdin.resume()"]);
  await once(child, "spawn");
  const first = await identify(child.pid ?? 0);
  t.match(first, /^[0-9a-f-]{36}\/\d+\/\d+$/);
  t.equal(await identify(child.pid ?? 0), first);
  t.not(await identify(process.pid), first);
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
  t.equal(await identify(child.pid ?? 0), undefined);
  for (const none of [0, -1]) t.equal(await identify(none), undefined);
});
