/** Tests what the operator is told when the stream of the source QEMU has ended. */
import t, { type Test } from "tap";
import { whyQemuFailed } from "../../../agent-source/guest/why-qemu-failed.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { greeting, Monitor, serve } from "../../support/fake-monitor.ts";

const ENDED = new MigrationFault("qemu-failed", "The source QEMU ended its migration stream");

/** @param answer what QEMU answers to `query-migrate` */
async function asked(t: Test, answer: object): Promise<MigrationFault> {
  const path = await serve(t, (socket) => {
    new Monitor(socket, ({ id }, monitor) => monitor.reply({ return: answer, id })).reply(greeting());
  });
  const qmp = await QmpClient.connect(path);
  t.teardown(() => qmp.close());
  return await whyQemuFailed(qmp, ENDED);
}

t.test("the fault says that another tool has cancelled the migration, whichever way QEMU shows it", async (t) => {
  for (const status of ["cancelling", "cancelled"])
    t.match(await asked(t, { status }), { code: "qemu-failed", message: /^Somebody else has cancelled/ });
  const shut = { status: "failed", "error-desc": "Channel error: Input/output error" };
  t.match(await asked(t, shut), { message: /has shut its stream \(Channel error.*another tool says migrate_cancel/ });
});

t.test("QEMU's own words are added to the fault where QEMU has some", async (t) => {
  const words = "Failed to save SaveStateEntry: virtio-net";
  t.match(await asked(t, { status: "failed", "error-desc": words }), {
    message: `The source QEMU ended its migration stream: ${words}`,
  });
  t.equal(await asked(t, { status: "failed" }), ENDED);
});

t.test("the fault stays as it was when QEMU's monitor has ended", async (t) => {
  const path = await serve(t, (socket) => {
    new Monitor(socket, ({ execute, id }, monitor) => {
      if (execute === "query-migrate") socket.destroy();
      else monitor.reply({ return: {}, id });
    }).reply(greeting());
  });
  t.equal(await whyQemuFailed(await QmpClient.connect(path), ENDED), ENDED);
});

t.test("a QEMU that has said why it ends, and answers no more, is reported with that reason", async (t) => {
  const path = await serve(t, (socket) => {
    new Monitor(socket, ({ execute, id }, monitor) => {
      if (execute !== "query-migrate") monitor.reply({ return: {}, id });
      else monitor.reply({ event: "SHUTDOWN", data: { guest: false, reason: "host-qmp-quit" }, timestamp: {} });
    }).reply(greeting());
  });
  const qmp = await QmpClient.connect(path);
  t.teardown(() => qmp.close());
  t.match(await whyQemuFailed(qmp, ENDED), {
    code: "qemu-failed",
    message: /Somebody has told the guest's QEMU to quit/,
  });
});

t.test("events that QEMU sent before it closed its monitor are read before QEMU is asked", async (t) => {
  let monitor: Monitor | undefined;
  const path = await serve(t, (socket) => {
    monitor = new Monitor(socket, ({ id }, it) => it.reply({ return: {}, id }));
    monitor.reply(greeting());
  });
  const qmp = await QmpClient.connect(path);
  t.teardown(() => qmp.close());
  monitor?.reply({ event: "SHUTDOWN", data: { guest: false, reason: "host-qmp-system-reset" }, timestamp: {} });
  monitor?.socket.destroy();
  t.match(await whyQemuFailed(qmp, ENDED), { message: /Somebody has reset the guest/ });
});
