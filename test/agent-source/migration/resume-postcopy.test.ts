/** Tests `resumePostcopy`: what is said to QEMU in which order, and where there is nothing left to resume from. */
import t, { type Test } from "tap";
import { PagesLost, resumePostcopy } from "../../../agent-source/migration/resume-postcopy.ts";
import type { SourceContext } from "../../../agent-source/migration/source-context.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { ResumingSource } from "../../../shared/link/resume/resuming-source.ts";
import { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { greeting, Monitor, serve } from "../../support/fake-monitor.ts";
import { RESUMED_POSTCOPY } from "../../support/fake-resumed.ts";
import { PLAIN, passing, SMALL, until } from "../../support/migrating.ts";
import { ResumedQemu } from "../../support/resumed-qemu.ts";
import { sourcePhase } from "../../support/source-cx.ts";
import { StreamDestination } from "../../support/stream-destination.ts";
import { StreamingQemu } from "../../support/streaming-qemu.ts";

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

/** Makes a source whose QEMU has lost the stream of a post-copy, and a destination that misses the first four pages. */
async function broken(t: Test, migration: string, clock?: FakeClock) {
  const phase = await sourcePhase(t, "paused", { flags: SMALL, asked: PLAIN, ...(clock && { clock }) });
  const { cx, qemu, happened } = phase;
  qemu.state.migration = migration;
  const there = new StreamDestination(cx);
  there.onHeard = ({ kind }) => {
    happened.push(`link: ${kind}`);
    if (kind !== "resume" || !there.answers) return;
    there.say({ kind: "missing", firstPage: 0, pageCount: 46, bits: Buffer.of(0x0f, 0, 0, 0, 0, 0), last: true });
  };
  there.dial();
  const resumed = async () => {
    const session = await resumePostcopy(cx, RESUMED_POSTCOPY, there.link);
    t.teardown(async () => {
      await session.stop();
      session.qmp.close();
    });
    return session;
  };
  return { ...phase, there, resumed };
}

t.test("a QEMU that has paused its post-copy goes on, and sends the pages that the destination misses", async (t) => {
  const { resumed, qemu, happened, there } = await broken(t, "postcopy-paused");
  const stream = new ResumedQemu(t, qemu);
  const session = await resumed();
  t.ok(session.isPostcopy);
  await session.ended.promise;
  t.same(stream.heard, ["all but 4 of 40 from 0", "all but 0 of 4 from 40", "all but 0 of 2 from 44", "resume"]);
  t.same(happened, ["link: resume", "qemu: migrate"]);
  t.same(stream.resumes, [true]);
  await until(() => there.lastSequence > 0, "the pages at the destination");
  t.match(session.kept, { postcopy: RESUMED_POSTCOPY, paused: false }, "this agent has stopped the guest");
});

t.test("a QEMU that has left its migration sends all of it again, without post-copy", async (t) => {
  const { resumed, qemu, happened } = await broken(t, "failed");
  const stream = new StreamingQemu(t, qemu);
  await resumed();
  await until(() => stream.heard.includes("ack"), "the acknowledgement, without which QEMU would not complete");
  t.same(happened.slice(0, 4), [
    ...["link: resume", "qemu: migrate-set-capabilities", "qemu: migrate-set-parameters", "qemu: migrate"],
  ]);
});

t.test("a QEMU that does not notice the cut is told to pause after 10 s, and is given up after 20 s", async (t) => {
  const clock = new FakeClock();
  const { resumed, qemu, there } = await broken(t, "postcopy-active", clock);
  await t.rejects(passing(clock, resumed(), 500), {
    code: "qemu-failed",
    message: /migration stays postcopy-active/,
  });
  t.ok(clock.monotonicMs() >= 20_000);
  t.same([...new Set(qemu.said)], ["migrate-pause"]);
  t.match(await there.link.closed, { code: "peer-lost" }, "the destination may dial again");
});

t.test("a destination that does not say what it misses is given up after 30 s, with QEMU as it was", async (t) => {
  const clock = new FakeClock();
  const { resumed, qemu, there } = await broken(t, "postcopy-paused", clock);
  there.answers = false;
  await t.rejects(passing(clock, resumed(), 500), { code: "timeout", message: /does not say which pages it misses/ });
  t.same(qemu.said, []);
  t.match(await there.link.closed, { code: "peer-lost" });
  await until(() => qemu.clients === 0, "the end of the connection, which frees the monitor");
});
