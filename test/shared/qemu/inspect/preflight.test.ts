/** Tests what is found out about a guest and its QEMU before a migration, and what speaks against one. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import {
  guestMemoryRanges,
  inspectDestination,
  inspectSource,
  machineTypeOf,
} from "../../../../shared/qemu/inspect/preflight.ts";
import { QmpClient } from "../../../../shared/qemu/qmp/qmp-client.ts";
import { eventually } from "../../../support/bounded.ts";

const STARTS_WITHIN_MS = 20_000;

/** Makes a directory whose path is short, since the path of a socket has at most 107 bytes. */
function directory(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), "ferry-preflight-"));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

async function start(t: Test, machine: string, ...more: string[]): Promise<QmpClient> {
  const path = join(directory(t), "qmp");
  const args = ["-M", machine, "-display", "none", "-nodefaults", "-m", "64", "-vga", "std"];
  const qemu = spawn("qemu-system-x86_64", [...args, "-qmp", `unix:${path},server=on,wait=off`, ...more]);
  let log = "";
  qemu.stderr.on("data", (chunk) => {
    log += chunk;
  });
  t.teardown(() => ended(qemu));
  const connect = async (): Promise<QmpClient | undefined> => {
    try {
      return await QmpClient.connect(path);
    } catch (thrown) {
      const isStarting = MigrationFault.from(thrown).code === "qmp-unreachable" && qemu.exitCode === null;
      if (!isStarting) throw new Error(log, { cause: thrown });
      return undefined;
    }
  };
  const qmp = await eventually(connect, { timeoutMs: STARTS_WITHIN_MS, everyMs: 20, what: "QEMU's monitor" });
  t.teardown(() => qmp.close());
  return qmp;
}

async function ended(qemu: ChildProcess): Promise<void> {
  if (qemu.exitCode !== null || qemu.signalCode !== null) return;
  const exit = new Promise((resolve) => qemu.once("exit", resolve));
  qemu.kill("SIGKILL");
  await exit;
}

/** Reads the names and lengths in the set-up of the RAM section, as QEMU itself sends them. */
async function blocksOfStream(t: Test, qmp: QmpClient): Promise<[string, number][]> {
  const path = join(directory(t), "stream");
  const chunks: Buffer[] = [];
  const server = createServer((socket) => socket.on("data", (chunk) => chunks.push(chunk)));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.teardown(() => server.close());
  await qmp.execute("migrate-set-capabilities", { capabilities: [{ capability: "events", state: true }] });
  const completed = qmp.waitFor("MIGRATION", (event) => event.data.status === "completed", { timeoutMs: 20_000 });
  await qmp.execute("migrate", { uri: `unix:${path}` });
  await completed;
  const stream = Buffer.concat(chunks);
  const ram = stream.indexOf("\x03ram");
  // the section has its name, instance and version first, and then the total with flags in the low bits
  let at = ram + 12;
  let left = Number(stream.readBigUInt64BE(at)) & ~4095;
  at += 8;
  const blocks: [string, number][] = [];
  while (left > 0) {
    const length = stream.readUInt8(at);
    const name = stream.toString("latin1", at + 1, at + 1 + length);
    const bytes = Number(stream.readBigUInt64BE(at + 1 + length));
    blocks.push([name, bytes]);
    left -= bytes;
    at += 9 + length;
  }
  return blocks;
}

for (const [machine, name] of [
  ["q35", /^pc-q35-\d+\.\d+$/],
  ["pc", /^pc-i440fx-\d+\.\d+$/],
] as const) {
  t.test(`${machine}: the facts are those of the guest, and a running guest is not refused`, async (t) => {
    const qmp = await start(t, machine);
    const facts = await inspectSource(qmp);
    t.strictSame(facts.refusals, []);
    t.strictSame(facts.postcopyRefusals, []);
    t.strictSame(facts.verifyRefusals, []);
    t.strictSame(facts.qemuVersion, qmp.greeting.version);
    t.match(facts.machineType, name);
    t.equal(await machineTypeOf(qmp), facts.machineType);
    t.equal(facts.cpuModel, "qemu64-x86_64-cpu");
    t.ok((facts.cpuFeatures["1:0:EDX"] ?? 0) > 0, "CPUID 1 EDX has bits");
    t.ok(facts.ramBlocks.every((block) => block.pageSize === 4096));
    t.strictSame(facts.ramBlocks[0], { name: "pc.ram", byteLength: 64 * 2 ** 20, pageSize: 4096 });
  });

  t.test(`${machine}: the RAM blocks are those that the migration stream lists`, async (t) => {
    const qmp = await start(t, machine, "-device", "e1000");
    const { ramBlocks } = await inspectSource(qmp);
    const listed = ramBlocks.map((block): [string, number] => [block.name, block.byteLength]);
    t.strictSame(listed, await blocksOfStream(t, qmp));
  });

  t.test(`${machine}: a destination that waits has the same facts`, async (t) => {
    const source = await start(t, machine);
    const mine = await inspectSource(source);
    source.close();
    await t.test("the QEMU that waits", async (t) => {
      const theirs = await inspectDestination(await start(t, machine, "-incoming", "defer"));
      const { refusals, postcopyRefusals, verifyRefusals, paused, ...facts } = mine;
      t.strictSame(theirs, facts);
    });
  });

  t.test(`${machine}: the memory ranges are RAM and ROM that pmemsave can read`, async (t) => {
    const qmp = await start(t, machine, "-S");
    const ranges = await guestMemoryRanges(qmp);
    let end = 0;
    for (const { start, byteLength } of ranges) {
      t.ok(start >= end && start % 4096 === 0 && byteLength % 4096 === 0 && byteLength > 0);
      end = start + byteLength;
    }
    t.strictSame(
      ranges.filter((range) => range.start < 0xa0000 || range.start === 0x100000),
      [
        { start: 0, byteLength: 0xa0000, block: "pc.ram" },
        { start: 0x100000, byteLength: 63 * 2 ** 20, block: "pc.ram" },
      ],
    );
    const bios = ranges.at(-1);
    t.match(bios, { block: "pc.bios" });
    t.equal(end, 2 ** 32);
    const filename = join(directory(t), "bios");
    await qmp.execute("pmemsave", { val: bios?.start ?? 0, size: bios?.byteLength ?? 0, filename });
    t.equal(statSync(filename).size, bios?.byteLength);
    t.ok(readFileSync(filename).some((byte) => byte !== 0));
  });
}

t.test("each capability that must be off is refused with a code of its own", async (t) => {
  const qmp = await start(t, "q35");
  await qmp.execute("migrate-set-capabilities", {
    capabilities: ["multifd", "dirty-bitmaps", "return-path"].map((capability) => ({
      capability,
      state: true,
    })),
  });
  const { refusals } = await inspectSource(qmp);
  t.strictSame(refusals.map((refusal) => refusal.code).sort(), ["capability-dirty-bitmaps", "capability-multifd"]);
});

t.test("a paused guest, and one that was never started, can be moved", async (t) => {
  const qmp = await start(t, "q35", "-S");
  t.match(await inspectSource(qmp), { paused: true, refusals: [] });
  await qmp.execute("cont");
  t.match(await inspectSource(qmp), { paused: false, refusals: [] });
  await qmp.execute("stop");
  t.match(await inspectSource(qmp), { paused: true, refusals: [] });
});

t.test("a guest that stands still for another reason is refused with that reason", async (t) => {
  const { paused, refusals } = await inspectSource(await start(t, "q35", "-incoming", "defer"));
  t.equal(paused, false);
  t.match(refusals, [
    { code: "guest-not-running", message: /is inmigrate, neither running nor paused; its QEMU waits for/ },
  ]);
});

t.test("a machine that is told to send no description is refused", async (t) => {
  const qmp = await start(t, "q35,suppress-vmdesc=on");
  const { refusals } = await inspectSource(qmp);
  t.strictSame(
    refusals.map((refusal) => refusal.code),
    ["machine-type"],
  );
});

t.test("a virtio-mem device is refused", async (t) => {
  const memory = ["-m", "64,maxmem=256M", "-object", "memory-backend-ram,id=m1,size=64M"];
  const qmp = await start(t, "q35", ...memory, "-device", "virtio-mem-pci,memdev=m1");
  const { refusals } = await inspectSource(qmp);
  t.ok(refusals.some((refusal) => refusal.code === "device-virtio-mem"));
});

t.test("a device that blocks migration is refused with QEMU's reason", async (t) => {
  const qmp = await start(
    t,
    "q35",
    "-object",
    "memory-backend-ram,id=m1,size=4M",
    "-device",
    "ivshmem-plain,memdev=m1",
  );
  const { refusals } = await inspectSource(qmp);
  t.match(refusals, [{ code: "migration-blocked", message: /ivshmem/ }]);
});

/** The capabilities that are asked for, all of them off, and others that are on. */
const capabilities = (...on: readonly string[]) => [
  ...["return-path", "switchover-ack", "postcopy-ram"].map((capability) => ({ capability, state: false })),
  ...on.map((capability) => ({ capability, state: true })),
];

/** A monitor that says what the test wants, about what preflight asks for and nothing else. */
function scripted(answers: Record<string, unknown>): QmpClient {
  const defaults: Record<string, unknown> = {
    type: "pc-q35-9.0-machine",
    "query-cpus-fast": [{ "qom-path": "/cpu" }],
    "qom-list": [],
    "query-status": { status: "running", running: true },
    "query-kvm": { enabled: true, present: true },
    "query-migrate": {},
    "query-migrate-capabilities": capabilities(),
    "query-memdev": [],
    "query-migrate-parameters": { "tls-creds": "", mode: "normal" },
    "info ramblock": "",
    "info qtree": "",
    version: { major: 9, minor: 0, micro: 0 },
    ...answers,
  };
  const execute = async (name: string, args: Record<string, string> = {}): Promise<unknown> =>
    defaults[args.property ?? args["command-line"] ?? name];
  return { greeting: { version: defaults.version, package: "" }, execute } as unknown as QmpClient;
}

const refused: readonly [string, string, Record<string, unknown>][] = [
  ["QEMU before 8.1", "qemu-too-old", { version: { major: 8, minor: 0, micro: 5 } }],
  [
    "an emulated guest of QEMU 8.2",
    "qemu-too-old",
    { version: { major: 8, minor: 2, micro: 9 }, "query-kvm": { enabled: false, present: true } },
  ],
  ["machine type pc-i440fx-2.3", "machine-type", { type: "pc-i440fx-2.3-machine" }],
  ["machine type pc-0.14", "machine-type", { type: "pc-0.14-machine" }],
  ["machine type pc-q35-1.4", "machine-type", { type: "pc-q35-1.4-machine" }],
  ["a migration under way", "migration-active", { "query-migrate": { status: "active" } }],
  ["a passed-through device", "device-vfio", { "info qtree": '      dev: vfio-pci, id "gpu"\r\n' }],
  ["compress", "capability-compress", { "query-migrate-capabilities": capabilities("compress") }],
  ["release-ram", "capability-release-ram", { "query-migrate-capabilities": capabilities("release-ram") }],
  ["a capability of a later QEMU", "capability-x-later", { "query-migrate-capabilities": capabilities("x-later") }],
  [
    "a QEMU that has dropped a capability that is needed",
    "capability-switchover-ack",
    { "query-migrate-capabilities": capabilities().filter(({ capability }) => capability !== "switchover-ack") },
  ],
  ["a migration that is in a state of a later QEMU", "migration-active", { "query-migrate": { status: "later" } }],
  ["a machine without description", "machine-type", { "suppress-vmdesc": true }],
  ["TLS in QEMU", "parameter-tls-creds", { "query-migrate-parameters": { "tls-creds": "tls0" } }],
  ["a reboot for migration", "parameter-mode", { "query-migrate-parameters": { mode: "cpr-reboot" } }],
  [
    "huge pages",
    "page-size",
    { "info ramblock": "   pc.ram    2 MiB  0x0000000000000000 0x0000000004000000 0x0000000004000000 0x0 rw\r\n" },
  ],
];
for (const [title, code, answers] of refused)
  t.test(`${title} is refused`, async (t) => {
    const { refusals } = await inspectSource(scripted(answers));
    t.strictSame(
      refusals.map((refusal) => refusal.code),
      [code],
    );
  });

t.test("reasons against post-copy alone do not speak against the migration", async (t) => {
  const emulated = { version: { major: 11, minor: 1, micro: 3 }, "query-kvm": { enabled: false, present: false } };
  const { refusals, postcopyRefusals } = await inspectSource(scripted(emulated));
  t.strictSame(refusals, []);
  t.strictSame(
    postcopyRefusals.map(({ code }) => code),
    ["postcopy-emulated"],
  );
});

for (const [title, answers] of [
  ["QEMU 8.1", { version: { major: 8, minor: 1, micro: 0 }, "query-migrate-parameters": {} }],
  ["an emulated guest of QEMU 9.0", { "query-kvm": { enabled: false, present: false } }],
  ["pc-i440fx-2.4", { type: "pc-i440fx-2.4-machine" }],
  ["pc-i440fx-2.10", { type: "pc-i440fx-2.10-machine" }],
  ["no credentials as null", { "query-migrate-parameters": { "tls-creds": null } }],
  ["a migration that failed before", { "query-migrate": { status: "failed" } }],
] as const)
  t.test(`${title} is not refused`, async (t) => t.strictSame((await inspectSource(scripted(answers))).refusals, []));
