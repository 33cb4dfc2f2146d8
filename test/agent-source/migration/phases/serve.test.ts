/**
 * Tests the state *serving*: which word of the destination ends it, and what is lost and written where the source QEMU
 * has left post-copy.
 */
import t, { type Test } from "tap";
import { serve } from "../../../../agent-source/migration/phases/serve.ts";
import type { AskedDestination } from "../../../support/asked-destination.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { RESUMED_POSTCOPY } from "../../../support/fake-resumed.ts";
import { memoryTransfer } from "../../../support/memory-link.ts";
import { loadedOf, migrating, passing, until } from "../../../support/migrating.ts";
import { sourcePhase } from "../../../support/source-cx.ts";

const RUNNING = { epoch: 1, resumedAtUs: 5, grantedAtUs: 4, agentCpuSeconds: 1, agentPeakMemoryBytes: 2 };
const SERVICE = { requests: 3, medianMs: 1, p99Ms: 2, maxMs: 2 };
const COMPLETE = { completedAtUs: 9, service: SERVICE, agentCpuSeconds: 2, agentPeakMemoryBytes: 3 };

/** Serves a guest over the first stream of its migration, from the answer to its grant on. */
async function flowing(t: Test, running: typeof RUNNING | undefined = RUNNING) {
  const clock = new FakeClock();
  const phase = await migrating(t, { stream: { postcopy: true }, clock });
  const { cx, session, there, destination, happened } = phase;
  destination.answersInTurn(["pulling"]);
  await passing(
    clock,
    session.letPostcopy(async () => undefined),
  );
  await session.packaged.promise;
  session.commit();
  session.inbox.grantSent(cx.token);
  happened.length = 0;
  const loaded = loadedOf(session);
  const end = serve({ kind: "serving", paused: false, loaded, ...(running && { running }) }, cx);
  end.catch(() => undefined);
  const refuse = (message: string): void =>
    there.say({ kind: "failure", code: "internal", message, refusedToken: cx.token });
  return { ...phase, clock, loaded, end, refuse };
}

/** Serves a guest as an agent that has started again, to whose questions the destination gives these answers. */
async function again(t: Test, ...answers: Parameters<AskedDestination["answersInTurn"]>[0]) {
  const clock = new FakeClock();
  const phase = await sourcePhase(t, "paused", { clock });
  phase.destination.answersInTurn(answers);
  const end = serve({ kind: "serving", paused: false, postcopy: RESUMED_POSTCOPY }, phase.cx);
  return { ...phase, clock, end: passing(clock, end) };
}

t.test(
  "the destination's last page ends the state: QEMU hears SHUT, and the result has both hosts' figures",
  async (t) => {
    const { there, end, loaded, happened, stream, session, clock } = await flowing(t);
    stream.sendLastPages();
    await session.ended.promise;
    there.say({ kind: "complete", ...COMPLETE });
    t.same(await passing(clock, end), {
      kind: "releasing",
      paused: false,
      loaded,
      running: RUNNING,
      complete: COMPLETE,
    });
    t.same(happened, ["qemu hears: shut 0"]);
  },
);

t.test(
  "when the guest was resumed is also taken from the stream, where the grant's answer did not say it",
  async (t) => {
    const { there, end, clock } = await flowing(t, undefined);
    there.say({ kind: "running", ...RUNNING });
    there.say({ kind: "complete", ...COMPLETE });
    t.match(await passing(clock, end), { kind: "releasing", running: RUNNING });
  },
);

t.test(
  "a guest that QEMU refuses to start there comes back, and its session is undone by the next state",
  async (t) => {
    const { end, refuse, session, qemu } = await flowing(t);
    refuse("its image is locked");
    t.match(await end, {
      kind: "keeping",
      fault: { code: "peer-failed", message: /refused the guest: its image is locked/ },
      undo: { session, granted: "givenBack", isRetired: true, mayBeWhole: false, postcopy: { ramSectionId: 2 } },
    });
    t.notOk(session.channel.isOver);
    t.notOk(qemu.said.includes("cont"));
  },
);

t.test(
  "a link that is down for link.doubtAfter leaves the guest in doubt, with the stream that it may need",
  async (t) => {
    const { there, end, session, clock, loaded, cx } = await flowing(t);
    there.cut();
    await until(() => session.channel.isCut, "the cut");
    t.match(await passing(clock, end), {
      kind: "inDoubt",
      silent: true,
      loaded,
      fault: {
        code: "in-doubt",
        message: /runs there with pages missing, and nothing was heard for \d+ ms \(link.doubtAfter\)/,
      },
    });
    t.ok(clock.monotonicMs() > cx.config.link.doubtAfterMs);
    t.notOk(session.channel.isOver, "when the destination dials again, its pages flow before it is asked anything");
  },
);

t.test("a destination that ends before it has every page is asked, and its words end the state", async (t) => {
  const { there, end, clock, destination, session } = await flowing(t);
  destination.answersInTurn(["lost"]);
  there.say({ kind: "failure", code: "internal", message: "its QEMU has ended", refusedToken: new Uint8Array() });
  t.match(await passing(clock, end), {
    kind: "inDoubt",
    lost: true,
    fault: { message: /its QEMU has ended before it had all/ },
  });
  t.ok(session.channel.isOver);
});

t.test("an agent that leaves leaves the state, and tells nobody", async (t) => {
  const { end, leave, qemu, happened } = await flowing(t);
  leave();
  await t.rejects(end, { code: "stopping" });
  t.same(happened, []);
  t.ok(qemu.isAlive);
});

t.test(
  "without a stream, a destination whose guest has ended with pages missing is in doubt, not released",
  async (t) => {
    const { end } = await again(t, "lost");
    t.match(await end, { kind: "inDoubt", lost: true, postcopy: RESUMED_POSTCOPY });
  },
);

t.test("without a stream, a destination that waits for its grant is left to the state that repeats it", async (t) => {
  const { end, destination } = await again(t, "waiting");
  t.match(await end, { kind: "inDoubt", silent: true });
  t.same(destination.asked, ["standing"], "this state does not grant");
});

t.test("without a stream, a refusal gives the guest back", async (t) => {
  const { end } = await again(t, { standing: "refused", reason: "its image is locked" });
  t.match(await end, { kind: "keeping", undo: { granted: "givenBack", postcopy: RESUMED_POSTCOPY } });
});

t.test("without a stream, a destination that cannot be asked for link.doubtAfter is in doubt", async (t) => {
  const clock = new FakeClock();
  const { cx, destination } = await sourcePhase(t, "paused", { clock });
  await destination.close();
  const end = serve({ kind: "serving", paused: false, postcopy: RESUMED_POSTCOPY }, cx);
  t.match(await passing(clock, end, 1000), { kind: "inDoubt", silent: true, postcopy: RESUMED_POSTCOPY });
  t.ok(clock.monotonicMs() > cx.config.link.doubtAfterMs);
});

t.test("without a record of how post-copy began, no page can be sent any more", async (t) => {
  const { cx, destination } = await sourcePhase(t, "paused");
  destination.answersInTurn(["pulling"]);
  t.match(await serve({ kind: "serving", paused: false }, cx), {
    kind: "stranded",
    fault: { code: "pages-lost", message: /no record of how post-copy began/, guestNow: /misses pages/ },
  });
});

/** Serves a guest that the destination calls pulling, over a stream that the destination begins again. */
async function serving(t: Test, status: string) {
  const phase = await sourcePhase(t, status);
  const { cx, destination } = phase;
  destination.answersInTurn(["pulling"]);
  const served = serve({ kind: "serving", paused: false, postcopy: RESUMED_POSTCOPY }, cx);
  const hello = { kind: "hello", migrationId: cx.id, token: cx.token, attempt: 1, received: 0 } as const;
  cx.restartedStreams.accept({ ...hello, generation: 0, restarted: true }, memoryTransfer().source);
  return { ...phase, end: await served };
}

t.test("a QEMU that has ended leaves nothing at the source, and the journal says so and why", async (t) => {
  const { end, record, written } = await serving(t, "gone");
  t.match(end, { kind: "stranded", fault: { code: "pages-lost", advice: /resolve 0123456789ab --keep source/ } });
  t.same(written, ["released"]);
  t.match(await record(), {
    kind: "released",
    reason: { code: "pages-lost", message: /Pages of the guest were lost/ },
  });
});

t.test("the record of a QEMU that still lives stays as it is, since an operator may want that QEMU", async (t) => {
  const { end, written } = await serving(t, "postmigrate");
  t.match(end, { kind: "stranded", fault: { code: "pages-lost" } });
  t.same(written, []);
});

t.test(
  "a source does not wait for ever for a destination that cannot dial in and needs pages of a QEMU that has ended",
  async (t) => {
    const { cx, destination } = await sourcePhase(t, "gone");
    destination.answersInTurn(["pulling"]);
    const end = await serve({ kind: "serving", paused: false, postcopy: RESUMED_POSTCOPY }, cx);
    t.match(end, { kind: "stranded", fault: { code: "pages-lost", message: /QEMU has ended/ } });
  },
);

t.test("a destination that has every page by now loses nothing, although its source QEMU has ended", async (t) => {
  const { cx, destination } = await sourcePhase(t, "gone");
  destination.answersInTurn(["running"]);
  t.match(await serve({ kind: "serving", paused: false, postcopy: RESUMED_POSTCOPY }, cx), { kind: "releasing" });
});
