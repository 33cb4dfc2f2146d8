/** Tests how much memory a QEMU is found to have in use. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import t from "tap";
import { residentBytesOf, residentIn } from "../../../../shared/runtime/host/resident-memory.ts";

t.test("a process is found by the path of its monitor, and its memory in use is told", async (t) => {
  const path = `${t.testdirName}/web.qmp`;
  // this stands for a QEMU that has written to 64 MiB
  const script = `const held = Buffer.alloc(64 << 20, 1); process.stdin.resume(); console.log(held.length);`;
  const child = spawn(process.execPath, ["-e", script, "--", `unix:${path},server=on,wait=off`], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  t.teardown(() => child.kill("SIGKILL"));
  await once(child.stdout, "data");
  const found = await residentBytesOf(path);
  t.ok(found !== undefined && found > 64 << 20 && found < 256 << 20, `${found} bytes`);
  t.equal(await residentBytesOf(path.slice(0, -1)), undefined, "only the whole path finds the process");
});

t.test("a figure that /proc does not give is not guessed", async (t) => {
  t.equal(residentIn("Name:\tqemu\nRssAnon:\t    1000 kB\nRssFile:\t 7 kB\nRssShmem:\t      24 kB\n"), 1024 * 1024);
  t.equal(residentIn("Name:\tkthreadd\n"), undefined);
  t.equal(residentIn(""), undefined);
});
