/** Tests `resumePostcopy` where there is nothing left from which a post-copy could be resumed. */
import t, { type Test } from "tap";
import { PagesLost, resumePostcopy } from "../../../agent-source/migration/resume-postcopy.ts";
import type { SourceContext } from "../../../agent-source/migration/source-context.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { ResumingSource } from "../../../shared/link/resume/resuming-source.ts";
import { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { greeting, Monitor, serve } from "../../support/fake-monitor.ts";
import { RESUMED_POSTCOPY } from "../../support/fake-resumed.ts";

const GREETING = greeting();

/** Everything of the context that is read until QEMU is parked. */
const within = (connect: () => Promise<unknown>): SourceContext =>
  ({ id: "m-1", call: { guest: "web" }, qemu: { connect }, clock: systemClock }) as unknown as SourceContext;

/** @param states what the migration and the guest are at each query, in turn; undefined when QEMU has ended */
async function resuming(t: Test, states: readonly (readonly [migration: string, guest: string])[] | undefined) {
  const said: string[] = [];
  let at = 0;
  const path =
    states === undefined
      ? undefined
      : await serve(t, (socket) => {
          new Monitor(socket, ({ execute, id }, monitor) => {
            const [status, guest] = states[Math.min(at, states.length - 1)]!;
            if (execute === "query-status") at++;
            else if (execute !== "query-migrate") said.push(execute);
            monitor.reply({ return: execute === "query-status" ? { status: guest, running: false } : { status }, id });
          }).reply(GREETING);
        });
  const link = new ResumingSource({ patienceMs: 1000, peer: "beta" }, 1);
  return {
    said,
    link,
    resumed: resumePostcopy(
      within(async () => path && QmpClient.connect(path)),
      RESUMED_POSTCOPY,
      link,
    ),
  };
}

t.test("the pages are lost when QEMU has ended", async (t) => {
  const { resumed } = await resuming(t, undefined);
  await t.rejects(resumed, { constructor: PagesLost, code: "qemu-failed", message: /has ended/ });
});

t.test(
  "the pages are lost when QEMU has left its migration or runs its guest, and the destination may dial again",
  async (t) => {
    for (const state of [
      ["completed", "postmigrate"],
      ["none", "paused"],
      ["cancelled", "running"],
    ] as const) {
      const { resumed, link, said } = await resuming(t, [state]);
      await t.rejects(resumed, { constructor: PagesLost, message: new RegExp(`${state[0]}.*${state[1]}`) });
      t.match(await link.closed, { code: "peer-lost" });
      t.same(said, [], "QEMU is left as it is");
    }
  },
);

t.test("a QEMU that cannot be reached is tried again, over another stream of the destination", async (t) => {
  const link = new ResumingSource({ patienceMs: 1000, peer: "beta" }, 1);
  const held = async (): Promise<never> => Promise.reject(new MigrationFault("qmp-timeout", "did not greet"));
  await t.rejects(resumePostcopy(within(held), RESUMED_POSTCOPY, link), { code: "qmp-timeout" });
  t.match(await link.closed, { code: "peer-lost" });
});

t.test("a QEMU that has not noticed the cut yet is awaited, also in states that only a later QEMU has", async (t) => {
  const { resumed } = await resuming(t, [
    ["postcopy-active", "paused"],
    ["postcopy-device", "finish-migrate"],
    ["failing", "finish-migrate"],
    ["later", "finish-migrate"],
    ["postcopy-recover", "paused"],
    ["completed", "paused"],
  ]);
  await t.rejects(resumed, { constructor: PagesLost, message: /is completed/ });
});
