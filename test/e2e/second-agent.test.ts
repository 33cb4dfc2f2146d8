/**
 * Tests that a host has one agent of a kind: a second agent beside a running one ends and leaves everything alone.
 * Tests also how an agent fails at its start, recovers, and takes signals.
 */
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import t from "tap";
import type { DestinationRecord } from "../../shared/protocol/ownership.ts";
import { decodeDestinationRecord } from "../../shared/protocol/record-decoding.ts";
import { identify } from "../../shared/runtime/host/process-identity.ts";
import { Journal } from "../../shared/runtime/journal/journal.ts";
import { closeRig } from "../support/after-migration.ts";
import { agentAddress, ferryCommand, listMigrations, spawnAgent, startAgent } from "../support/agents.ts";
import { bounded } from "../support/bounded.ts";
import { BufCurl } from "../support/buf-curl.ts";
import type { RigProcess } from "../support/process.ts";
import { Rig, type RigHost } from "../support/rig.ts";

t.setTimeout(120_000);
const ENDS_MS = 20_000;
const ID = "0123456789ab";
const KINDS = ["source", "destination"] as const;
type Kind = (typeof KINDS)[number];

/**
 * Describes every file of the host by all that changes with the file, and by nothing that a mere look at a directory
 * changes.
 */
function snapshot(host: RigHost): readonly string[] {
  return [host.stateDirectory, host.runtimeDirectory].flatMap((directory) =>
    [".", ...readdirSync(directory, { recursive: true, encoding: "utf8" })].sort().map((name) => {
      const path = join(directory, name);
      const { ino, mode, size, mtimeMs, ctimeMs } = statSync(path);
      const contents = statSync(path).isFile() ? readFileSync(path, "utf8") : "";
      return JSON.stringify({ path, ino, mode, size, mtimeMs, ctimeMs, contents });
    }),
  );
}

/** Leaves files as an agent has them while it migrates, which an agent that starts sweeps. */
function leaveFiles(host: RigHost, kind: Kind): void {
  const state = join(host.stateDirectory, kind);
  writeFileSync(join(state, `${ID}.json`), "a record, and not whole");
  writeFileSync(join(state, `${ID}.json.new`), "a record that was prepared");
  for (const name of ["stream", "incoming", "verify", "verify-destination"])
    writeFileSync(join(host.runtimeDirectory, `${ID}.${name}`), "");
}

const end = (agent: RigProcess) => bounded(agent.ended, ENDS_MS, `the end of ${agent.name}`);

t.test("a second agent beside a running one ends with exit code 3 and touches nothing", async (t) => {
  const rig = await Rig.open();
  t.teardown(() => closeRig(rig));
  const elsewhere = join(rig.folder, "elsewhere");
  mkdirSync(elsewhere, { mode: 0o700 });
  for (const kind of KINDS) {
    const first = await startAgent(rig, rig.a, kind);
    leaveFiles(rig.a, kind);
    const before = snapshot(rig.a);
    const address = agentAddress(rig, rig.a, kind);
    const other = ["--listen=127.0.0.1:0"];
    const cases: readonly (readonly [string, readonly string[], RegExp])[] = [
      ["the same directories and port", [], /^stateDirectory .* is in use: process (\d+) \(/m],
      ["the same directories and another port", other, /^stateDirectory .* is in use: process (\d+) \(/m],
      [
        "another state directory and another port",
        [...other, `--state-directory=${join(elsewhere, kind)}`],
        /^runtimeDirectory .* is in use: process (\d+) \(/m,
      ],
      [
        "other directories and the same port",
        [`--state-directory=${join(elsewhere, kind)}`, `--runtime-directory=${join(elsewhere, "run")}`],
        /^Cannot listen at .*; process (\d+) \(/m,
      ],
    ];
    for (const [what, flags, words] of cases) {
      const second = await spawnAgent(rig, rig.a, kind, flags);
      t.match(await end(second), { code: 3, signal: null }, `${kind}, ${what}`);
      const named = words.exec(second.output());
      t.equal(named?.[1], String(first.pid), `${kind}, ${what}: ${second.output()}`);
      t.match(second.output(), /stop it before you start this one/, "the second agent says what to do");
      t.same(snapshot(rig.a), before, `${kind}, ${what}: no file differs`);
    }
    const made = readdirSync(elsewhere).flatMap((name) => readdirSync(join(elsewhere, name)));
    t.same(made, [`.${kind}.lock`], "the second agent has locked one of its own directories by a file");
    rmSync(join(elsewhere, "run", `.${kind}.lock`));
    const health = await new BufCurl(rig, rig.a).call(address, "grpc.health.v1.Health/Check");
    t.match(health.messages, [{ status: "SERVING" }], `${kind}: the first one still serves`);
    t.match(await first.stop(), { code: 0 });
  }
});

t.test("an agent that fails after it has bound its ports ends, and the next agent can start", async (t) => {
  const rig = await Rig.open();
  t.teardown(() => closeRig(rig));
  for (const kind of KINDS) {
    // this is a directory and no file, so the journal cannot clear it away
    const inTheWay = join(rig.a.stateDirectory, kind, `${ID}.json.new`);
    mkdirSync(inTheWay, { recursive: true, mode: 0o700 });
    const failing = await spawnAgent(rig, rig.a, kind);
    t.match(await end(failing), { code: 1, signal: null });
    t.match(failing.output(), /Cannot open .*: /);
    const sound = [`--state-directory=${join(rig.folder, `sound-${kind}`)}`];
    t.match(await (await startAgent(rig, rig.a, kind, sound)).stop(), { code: 0 });
  }
});

t.test("a call during the recovery waits for its end, and health says NOT_SERVING until then", async (t) => {
  const rig = await Rig.open();
  t.teardown(() => closeRig(rig));
  // a QEMU that says nothing holds the recovery up, until letGo() closes its connections
  const qmp = join(rig.a.runtimeDirectory, "web.qmp");
  const sockets = new Set<Socket>();
  const letGo = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  const mute = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
  });
  const asked = once(mute, "connection");
  await new Promise<void>((resolve) => mute.listen(qmp, () => resolve()));
  t.teardown(() => {
    mute.close();
    letGo();
  });
  rig.writeDefinition({ name: "web", qmp, command: ["qemu"] });
  const directory = join(rig.a.stateDirectory, "destination");
  const journal = await Journal.open<DestinationRecord>(directory, decodeDestinationRecord);
  // this program stands for the QEMU, since its process lives
  const qemu = { pid: process.pid, identity: (await identify(process.pid)) ?? "" };
  const grant = { token: "aa".repeat(16), epoch: 1, paused: false };
  const record = { guest: "web", source: "127.0.0.1:9", sequence: 1, startedAtMs: 1, qemu, grant };
  await journal.write(ID, { kind: "waiting", ...record });
  const agent = await spawnAgent(rig, rig.a, "destination", ["--qmp-timeout=1m"]);
  await bounded(asked, ENDS_MS, "the recovery's question to QEMU");
  const address = agentAddress(rig, rig.a, "destination");
  const curl = new BufCurl(rig, rig.a);
  const health = () => curl.call(address, "grpc.health.v1.Health/Check");
  t.match((await health()).messages, [{ status: "NOT_SERVING" }]);
  const ends = { source: agent, destination: agent, sourceAddress: address, destinationAddress: address };
  const agents = { host: rig.a, ...ends, ferryFlags: [] };
  const list = listMigrations(rig, agents);
  // `ferry list` may ask before the recovery goes on or after that, and is answered in both cases
  letGo();
  t.match(await bounded(list, ENDS_MS, ferryCommand(agents, ["list"]).join(" ")), [{ id: ID, guest: "web" }]);
  await agent.waitForOutput(/Listening at/, { timeoutMs: ENDS_MS });
  t.match((await health()).messages, [{ status: "SERVING" }]);
});

t.test("an agent logs SIGHUP and SIGUSR1, does not end, and does not open Node's inspector", async (t) => {
  const rig = await Rig.open();
  t.teardown(() => closeRig(rig));
  for (const kind of KINDS) {
    const agent = await startAgent(rig, rig.a, kind);
    for (const signal of ["SIGHUP", "SIGUSR1"] as const) {
      agent.signal(signal);
      await agent.waitForOutput(new RegExp(`${signal} changes nothing`), { timeoutMs: ENDS_MS });
    }
    t.notMatch(agent.output(), /Debugger listening/);
    const health = await new BufCurl(rig, rig.a).call(agentAddress(rig, rig.a, kind), "grpc.health.v1.Health/Check");
    t.match(health.messages, [{ status: "SERVING" }], kind);
    t.match(await agent.stop(), { code: 0 });
  }
});
