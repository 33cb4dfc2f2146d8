/**
 * Tests a post-copy that cannot be served any more, because the source QEMU has left it: what is lost, and what is
 * written.
 */
import t, { type Test } from "tap";
import { serve } from "../../../../agent-source/migration/phases/serve.ts";
import { RESUMED_POSTCOPY } from "../../../support/fake-resumed.ts";
import { memoryTransfer } from "../../../support/memory-link.ts";
import { sourcePhase } from "../../../support/source-cx.ts";

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
