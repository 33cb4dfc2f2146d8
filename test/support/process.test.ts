/** Tests that programs of a test are ended in the time that they were promised. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { AGENT_GRACE_MS } from "./agents.ts";
import { RigProcess } from "./process.ts";

/** Starts a shell that does `then` when it is asked to end. It has printed "ready" when it can be asked. */
async function shell(then: string, graceMs: number): Promise<RigProcess> {
  const script = `trap '${then}' TERM; echo ready; while :; do sleep 0.05; done`;
  const made = await RigProcess.start({ name: "shell", command: ["sh", "-c", script], graceMs });
  await made.waitForOutput(/ready/, { timeoutMs: 20_000 });
  return made;
}

t.test("stop() gives a program the time that it was promised, and then kills it", async (t) => {
  const slow = await shell("sleep 0.3; exit 7", 60_000);
  t.match(await slow.stop(), { code: 7, signal: null });
  const deaf = await shell("", 50);
  t.match(await deaf.stop(), { code: null, signal: "SIGKILL" });
  const hurried = await shell("", 60_000);
  t.match(await hurried.stop({ graceMs: 50 }), { signal: "SIGKILL" }, "a test may give it another time");
});

t.test("AGENT_GRACE_MS is the time that the units give an agent to end", async (t) => {
  for (const kind of ["source", "destination"]) {
    const unit = readFileSync(join(packageRoot(), "systemd", `ferry-${kind}.service`), "utf8");
    t.equal(Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)?.[1]) * 1000, AGENT_GRACE_MS);
  }
});
