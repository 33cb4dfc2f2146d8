/** Tests the state *planned*: the guest and its QEMU are looked at, and nothing at either is changed. */
import t, { type Test } from "tap";
import { plan } from "../../../../agent-source/migration/phases/plan.ts";
import { FAKE_RAM } from "../../../support/fake-guest-facts.ts";
import { until } from "../../../support/migrating.ts";
import { type PhaseOptions, sourcePhase } from "../../../support/source-cx.ts";

async function planning(t: Test, status: string, options: PhaseOptions = {}) {
  const phase = await sourcePhase(t, status, options);
  return { ...phase, planned: () => plan({ kind: "planned" }, phase.cx) };
}

t.test("the guest is offered as its QEMU has it, and QEMU is only asked questions", async (t) => {
  const { planned, qemu, cx } = await planning(t, "running");
  const { kind, definition, facts, qmp } = await planned();
  t.equal(kind, "negotiating");
  t.match(definition, { name: "web", qmp: qemu.path });
  t.match(facts, { machineType: "pc-q35-10.0", cpuModel: "qemu64-x86_64-cpu", ramBlocks: FAKE_RAM, paused: false });
  t.same([...facts.refusals, ...qemu.said], []);
  t.equal(cx.qemu.process?.identity, qemu.process.identity, "this process is the one that the migration is about");
  t.ok(qmp.isOpen, "the next states go on with this monitor");
  qmp.close();
});

t.test("a guest that its operator has paused is moved as a paused one", async (t) => {
  for (const status of ["paused", "prelaunch"]) {
    const { planned } = await planning(t, status);
    const { facts, qmp } = await planned();
    t.match(facts, { paused: true, refusals: [] }, status);
    qmp.close();
  }
});

t.test(
  "a reason against the migration is no fault yet: the destination's reasons are to be told with it",
  async (t) => {
    const { planned } = await planning(t, "io-error");
    const { kind, facts, qmp } = await planned();
    t.equal(kind, "negotiating");
    t.match(facts.refusals, [{ code: "guest-not-running", message: /is io-error.*mend its disk/ }]);
    qmp.close();
  },
);

t.test(
  "a QEMU that does not answer one of the questions fails the plan, and the fault says what the guest does",
  async (t) => {
    const { planned, qemu } = await planning(t, "running");
    qemu.whim = ({ execute }) => (execute === "query-migrate" ? "the monitor is busy" : undefined);
    await t.rejects(planned(), {
      code: "qmp-command",
      message: /QEMU refused query-migrate: the monitor is busy/,
      guestNow: "the guest runs at the source",
    });
    await until(() => qemu.clients === 0, "the end of the connection, which frees the monitor");
  },
);

t.test("the fault says that the guest was not touched where QEMU cannot even tell what the guest does", async (t) => {
  const { planned, qemu } = await planning(t, "running");
  qemu.whim = ({ execute }) => (/^query-(migrate|status)$/.test(execute) ? "the monitor is busy" : undefined);
  await t.rejects(planned(), { code: "qmp-command", guestNow: /^the guest was not touched; its QEMU does not answer/ });
});

t.test("a guest whose QEMU has ended cannot be moved", async (t) => {
  const { planned } = await planning(t, "gone");
  await t.rejects(planned(), { code: "qmp-unreachable" });
});

t.test("a QEMU that does not greet is waited for no longer than qmp.timeout", async (t) => {
  const { planned, qemu } = await planning(t, "running", { flags: ["--qmp-timeout=200ms"] });
  qemu.greets = false;
  await t.rejects(planned(), { code: "qmp-timeout", message: /did not greet within 200 ms/ });
});

t.test("the operator's cancel ends the wait for a QEMU that does not greet", async (t) => {
  const { planned, qemu, cancel } = await planning(t, "running");
  qemu.greets = false;
  const end = planned();
  cancel();
  await t.rejects(end, { code: "cancelled" });
});

t.test("a definition that cannot be used is named", async (t) => {
  const { planned } = await planning(t, "running", { definition: { command: [] } });
  await t.rejects(planned(), { code: "configuration", message: /command/ });
});
