/**
 * Tests that a source QEMU which cannot leave the switchover to the agents is refused by name, before anything is
 * touched.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import t, { type Test } from "tap";
import { assertOneGuest, closeRig } from "../support/after-migration.ts";
import { startAgents } from "../support/agents.ts";
import { migrate } from "../support/ferry-json.ts";
import { guestDefinition, guestFiles } from "../support/guest.ts";
import { oldQemu } from "../support/old-qemu.ts";
import { IDLE, openPair, type Pair } from "../support/pair.ts";
import { Rig } from "../support/rig.ts";

t.setTimeout(180_000);

t.test("a QEMU that says it is 7.2 is refused, and the guest notices nothing", async (t) => {
  const pair = await openPair(t, { guest: { name: "old", workload: IDLE } });
  const { rig } = pair;
  const relay = await relayAsVersion7(
    join(rig.a.runtimeDirectory, guestFiles("old").observer),
    join(rig.folder, "relay.qmp"),
  );
  t.teardown(() => relay.close());
  rig.writeDefinition({ ...pair.definition, qmp: join(rig.folder, "relay.qmp") });
  await refusedAsTooOld(t, pair, "old");
  await assertOneGuest(t, rig, { name: "old", at: rig.a });
  const changing = relay
    .asked()
    .filter((line) => !/"(qmp_capabilities|query-[\w-]+|qom-\w+|human-monitor-command)"/.test(line));
  t.same(changing, [], "the agents have only asked QEMU, and changed nothing");
});

const qemu = oldQemu();
t.test("a real QEMU 7.2 is refused", { skip: qemu === undefined && "there is none in .cache/qemu-7.2" }, async (t) => {
  const rig = await Rig.open();
  t.teardown(() => closeRig(rig));
  const definition = guestDefinition({ name: "bookworm", machine: "pc-q35-7.2", memoryMiB: 256, workload: IDLE });
  const [, ...args] = definition.command;
  rig.writeDefinition(definition);
  await rig.startGuest(rig.a, { ...definition, command: [...qemu!, ...args] });
  const [a, b] = [await startAgents(rig, rig.a), await startAgents(rig, rig.b)];
  await rig.serial(rig.a, "bookworm").waitForBeats(2, { timeoutMs: 60_000 });
  await refusedAsTooOld(t, { rig, a, b }, "bookworm");
  await assertOneGuest(t, rig, { name: "bookworm", at: rig.a });
});

async function refusedAsTooOld(t: Test, { rig, a, b }: Pick<Pair, "rig" | "a" | "b">, name: string): Promise<void> {
  const { code, answer } = await migrate(rig, a, b, name);
  t.equal(code, 1);
  t.match(answer, {
    status: "failed",
    error: { code: "refused", message: /7\.2\.\d+ is older than 8\.1/, guestNow: /runs at the source/ },
  });
  t.ok(
    answer.error?.refusals.some((one) => one.code === "qemu-too-old"),
    "one refusal is named qemu-too-old",
  );
}

interface Relay {
  /** What clients have sent to the monitor, one entry for each line. */
  asked(): readonly string[];
  close(): Promise<void>;
}

/** Relays a monitor's socket to another one, and makes the QEMU there say that it is 7.2.0. */
async function relayAsVersion7(to: string, path: string): Promise<Relay> {
  const sockets = new Set<Socket>();
  let asked = "";
  const server: Server = createServer((client) => {
    const monitor = connect(to);
    for (const socket of [client, monitor]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        client.destroy();
        monitor.destroy();
      });
    }
    client.on("data", (bytes) => {
      asked += bytes.toString();
      monitor.write(bytes);
    });
    let greeting = "";
    monitor.on("data", (bytes) => {
      if (greeting.includes("\n")) client.write(bytes);
      else {
        greeting += bytes.toString();
        if (greeting.includes("\n")) client.write(greeting.replace(/"qemu": \{[^}]*\}/, VERSION));
      }
    });
  });
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(path, resolve));
  return {
    asked: () => asked.split("\n").filter((line) => line.trim() !== ""),
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

const VERSION = '"qemu": {"micro": 0, "minor": 2, "major": 7}';
