import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { AGENT_GRACE_MS } from "./agents.ts";
import { RigProcess } from "./process.ts";

/** A shell that is asked to end and does `then`; it has said "ready" when it can be asked. */
async function shell(then: string, graceMs: number): Promise<RigProcess> {
  const script = `trap '${then}' TERM; echo ready; while :; do sleep 0.05; done`;
  const made = await RigProcess.start({ name: "shell", command: ["sh", "-c", script], graceMs });
  await made.waitForOutput(/ready/, { timeoutMs: 20_000 });
  return made;
}

t.test("a program that is stopped has the time that it was promised, and no more", async (t) => {
  const slow = await shell("sleep 0.3; exit 7", 60_000);
  t.match(await slow.stop(), { code: 7, signal: null });
  const deaf = await shell("", 50);
  t.match(await deaf.stop(), { code: null, signal: "SIGKILL" });
  const hurried = await shell("", 60_000);
  t.match(await hurried.stop({ graceMs: 50 }), { signal: "SIGKILL" }, "a test may say otherwise");
});

t.test("an agent has the time that its unit gives it", async (t) => {
  for (const kind of ["source", "destination"]) {
    const unit = readFileSync(join(packageRoot(), "systemd", `ferry-${kind}.service`), "utf8");
    t.equal(Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)?.[1]) * 1000, AGENT_GRACE_MS);
  }
});
