/** Tests that an answer of QEMU is taken only when it has the form that QEMU gives it. */
import t from "tap";
import { readAnswer, readEvent } from "../../../../shared/qemu/qmp/qmp-answers.ts";
import type { QmpCommandName } from "../../../../shared/qemu/qmp/qmp-types.ts";

const image = { filename: "/a.qcow2", format: "qcow2", "virtual-size": 1 << 20, "actual-size": 4096, dirty: false };
const below = (depth: number): object => (depth === 0 ? image : { ...image, "backing-image": below(depth - 1) });

t.test("what QEMU answers is taken, without the fields that nobody reads", async (t) => {
  t.same(readAnswer("query-status", { status: "running", running: true, singlestep: false }), {
    status: "running",
    running: true,
  });
  t.same(readAnswer("query-migrate", {}), {}, "there was no migration yet");
  t.same(readAnswer("query-block", [{ device: "", removable: true, locked: false, type: "unknown" }]), [
    { device: "", removable: true },
  ]);
  const [drive] = readAnswer("query-block", [
    { device: "d0", qdev: "disk0", removable: false, inserted: { image: below(2), "node-name": "n0", ro: false } },
  ]);
  t.match(drive?.inserted?.image["backing-image"]?.["backing-image"], {
    filename: "/a.qcow2",
    "virtual-size": 1 << 20,
  });
  const parameters = {
    "downtime-limit": 300,
    "tls-creds": "",
    "block-bitmap-mapping": [],
    "cpu-throttle-tailslow": false,
  };
  t.same(readAnswer("query-migrate-parameters", parameters), {
    "downtime-limit": 300,
    "tls-creds": "",
    "cpu-throttle-tailslow": false,
  });
  t.equal(readAnswer("cont", {}), undefined);
});

t.test("an answer of another form is QEMU's fault, and the message names the field", async (t) => {
  const refused: readonly [QmpCommandName, unknown, RegExp][] = [
    [
      "query-status",
      { status: { toString: 1 }, running: true },
      /the status of an answer to query-status that is no text/,
    ],
    ["query-status", { status: "x".repeat(15 << 20), running: true }, /has 15728640 characters; at most 4096 /],
    ["query-status", [], /an answer to query-status that is no object/],
    ["query-cpus-fast", [{ "cpu-index": 0, "qom-path": "/", "thread-id": "1; reboot", target: "x86_64" }], /thread-id/],
    [
      "query-migrate",
      { status: "active", ram: { total: Number.POSITIVE_INFINITY } },
      /the total of the ram of an answer to query-migrate/,
    ],
    ["query-block-jobs", Array(10_001).fill({ type: "", device: "", status: "" }), /has 10001 entries; at most 10000 /],
    ["query-block", [{ device: "d", removable: false, inserted: { image: below(300) } }], /more than 200 images/],
    ["query-vm-generation-id", "guid", /is no object/],
    ["human-monitor-command", { text: "" }, /is no text/],
    ["qom-list", {}, /is no list/],
  ];
  for (const [command, value, message] of refused)
    t.throws(() => readAnswer(command, value), { name: "MigrationFault", code: "qmp-protocol", message });
});

t.test("the events that agents look into are checked, and others are passed on", async (t) => {
  t.same(readEvent("MIGRATION_PASS", { pass: 2 }), { pass: 2 });
  t.same(readEvent("VNC_CONNECTED", { server: {} }), { server: {} });
  t.throws(() => readEvent("MIGRATION_PASS", { pass: "2" }), { code: "qmp-protocol", message: /the pass of an event/ });
  t.throws(() => readEvent("MIGRATION", {}), { code: "qmp-protocol" });
});
