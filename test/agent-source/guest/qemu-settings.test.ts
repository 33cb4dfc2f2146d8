/**
 * Tests which settings the agent makes in the source QEMU, when it lets QEMU stop the guest, and how it puts settings
 * back.
 */
import t, { type Test } from "tap";
import {
  allowStop,
  applySettings,
  beginPostcopy,
  readSettings,
  restoreSettings,
} from "../../../agent-source/guest/qemu-settings.ts";
import { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { PAGE_SIZE } from "../../../shared/units.ts";
import { eventually } from "../../support/bounded.ts";
import { type Command, Monitor, serve } from "../../support/fake-monitor.ts";

const CAPABILITIES = [
  { capability: "return-path", state: false },
  { capability: "switchover-ack", state: false },
  { capability: "events", state: true },
  { capability: "multifd", state: false },
];
const PARAMETERS = { "max-bandwidth": 134217728, "downtime-limit": 300, "multifd-channels": 2 };

class QemuSide extends Monitor {
  /** Returns true for a command that the test answers itself. */
  otherwise: (command: Command) => boolean = () => false;
}

async function qemu(
  t: Test,
  [major, minor]: readonly [number, number],
  capabilities: readonly object[] = CAPABILITIES,
): Promise<{ qmp: QmpClient; it: () => QemuSide }> {
  let monitor: QemuSide | undefined;
  const path = await serve(t, (socket) => {
    const side = new QemuSide(socket, (command, it) => {
      const { execute, id } = command;
      if (side.otherwise(command)) return;
      if (execute === "query-migrate-capabilities") it.reply({ return: capabilities, id });
      else if (execute === "query-migrate-parameters")
        it.reply({ return: minor > 1 ? { ...PARAMETERS, "avail-switchover-bandwidth": 0 } : PARAMETERS, id });
      else it.reply({ return: execute === "query-status" ? { status: "running", running: true } : {}, id });
    });
    monitor = side;
    side.reply({ QMP: { version: { qemu: { major, minor, micro: 0 }, package: "" }, capabilities: [] } });
  });
  const qmp = await QmpClient.connect(path);
  t.teardown(() => qmp.close());
  return { qmp, it: () => monitor! };
}

/** Returns the parameters that the last command set. */
function parametersSet(monitor: Monitor): Record<string, number> {
  const { execute, arguments: values = {} } = monitor.commands.at(-1)!;
  if (execute !== "migrate-set-parameters") throw new Error(`${execute} came last`);
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Number(value)]));
}

t.test("while the guest is copied, QEMU's threshold for the switchover is less than a page", async (t) => {
  const { qmp, it } = await qemu(t, [8, 2]);
  await applySettings(qmp, "precopy");
  const { "downtime-limit": ms = 0, "avail-switchover-bandwidth": bandwidth = 0 } = parametersSet(it());
  t.ok((bandwidth / 1000) * ms < PAGE_SIZE, "QEMU never syncs while a page waits");
  t.ok((bandwidth / 1000) * ms > 0, "with a threshold of 0 QEMU completes as soon as the first pass is drained");
});

t.test("once QEMU may stop the guest, the threshold is larger than any guest", async (t) => {
  const { qmp, it } = await qemu(t, [10, 0]);
  await allowStop(qmp);
  t.equal(
    it().commands.at(-2)?.execute,
    "query-status",
    "a round trip comes first, in which QEMU takes the acknowledgement",
  );
  const { "downtime-limit": ms = 0, "avail-switchover-bandwidth": bandwidth = 0 } = parametersSet(it());
  t.ok((bandwidth / 1000) * ms > 2 ** 46);
  t.ok((bandwidth / 1000) * ms < 2 ** 63, "QEMU multiplies both in 64 bits");
});

t.test("QEMU 8.1 is not told the switchover bandwidth, which it does not know", async (t) => {
  const { qmp, it } = await qemu(t, [8, 1]);
  await applySettings(qmp, "precopy");
  t.notMatch(parametersSet(it()), { "avail-switchover-bandwidth": Number });
  await allowStop(qmp);
  t.strictSame(parametersSet(it()), { "downtime-limit": 2_000_000 });
});

t.test("the settings that were found before are set again, and no others", async (t) => {
  const { qmp, it } = await qemu(t, [8, 2]);
  const before = await readSettings(qmp);
  t.strictSame(before, {
    capabilities: { "return-path": false, "switchover-ack": false, events: true },
    parameters: { "max-bandwidth": 134217728, "downtime-limit": 300, "avail-switchover-bandwidth": 0 },
  });
  await restoreSettings(qmp, before);
  t.strictSame(parametersSet(it()), before.parameters);
});

t.test(
  "post-copy is switched on where it was agreed on, and a look makes QEMU pause before it completes",
  async (t) => {
    for (const purpose of ["precopy", "postcopy", "looking"] as const) {
      const off = ["pause-before-switchover", "postcopy-ram", "postcopy-preempt"];
      const all = [...CAPABILITIES, ...off.map((capability) => ({ capability, state: false }))];
      const { qmp, it } = await qemu(t, [10, 0], all);
      await applySettings(qmp, purpose);
      const set = it().commands.find(({ execute }) => execute === "migrate-set-capabilities");
      t.same(set?.arguments, {
        capabilities: [
          { capability: "return-path", state: true },
          { capability: "switchover-ack", state: true },
          { capability: "events", state: true },
          { capability: "pause-before-switchover", state: purpose === "looking" },
          { capability: "postcopy-ram", state: purpose === "postcopy" },
          { capability: "postcopy-preempt", state: false },
        ],
      });
    }
  },
);

t.test("a capability that QEMU does not know is left out, unless the agent needs it switched on", async (t) => {
  const { qmp, it } = await qemu(t, [12, 0], [{ capability: "return-path", state: false }]);
  const before = await readSettings(qmp);
  const asked = it().commands.length;
  await applySettings(qmp, "precopy", before);
  const [set, ...others] = it().commands.slice(asked);
  t.same(
    set?.arguments?.capabilities,
    ["return-path", "switchover-ack", "events"].map((capability) => ({ capability, state: true })),
  );
  t.equal(others.length, 1, "QEMU is not asked again for settings that were read before");
});

t.test(
  "post-copy begins with a guest that the agent stops, and the stream is read before an answer is awaited",
  async (t) => {
    const { qmp, it } = await qemu(t, [10, 0]);
    const said = (): string[] => it().commands.map(({ execute }) => execute);
    // a QEMU that completes after the stop answers only when its stream is read
    let answerStop: (() => void) | undefined;
    it().otherwise = ({ execute, id }) => {
      if (execute !== "stop") return false;
      answerStop = () => it().reply({ return: {}, id });
      return true;
    };
    let isRead = false;
    const begun = beginPostcopy(qmp, () => {
      t.equal(
        said().at(-1),
        "migrate-start-postcopy",
        "QEMU was told to begin post-copy and has answered, while the guest runs",
      );
      isRead = true;
    });
    await eventually(() => answerStop, { timeoutMs: 10_000, what: "the command stop" });
    t.ok(isRead);
    t.equal(said().at(-1), "stop");
    answerStop?.();
    await begun;
  },
);

t.test("whether post-copy was switched on before is found out, and set again", async (t) => {
  const { qmp, it } = await qemu(t, [10, 0], [...CAPABILITIES, { capability: "postcopy-ram", state: true }]);
  const before = await readSettings(qmp);
  t.match(before.capabilities, { "postcopy-ram": true });
  await restoreSettings(qmp, before);
  const set = it().commands.find(({ execute }) => execute === "migrate-set-capabilities");
  t.match(set?.arguments?.capabilities, [{}, {}, {}, { capability: "postcopy-ram", state: true }]);
});
