/** Post-copy that cannot be served any more: the source QEMU has left it, and what it takes with it. */
import t, { type Test } from "tap";
import { serve } from "../../../../agent-source/migration/phases/serve.ts";
import { RESUMED_POSTCOPY } from "../../../support/fake-resumed.ts";
import { memoryTransfer } from "../../../support/memory-link.ts";
import { sourcePhase } from "../../../support/source-cx.ts";

/** Serves a guest that the destination says to be pulling, and whose stream is begun anew. */
async function serving(t: Test, status: string) {
  const phase = await sourcePhase(t, status);
  const { cx, destination } = phase;
  destination.answersInTurn(["pulling"]);
  const served = serve({ kind: "serving", paused: false, postcopy: RESUMED_POSTCOPY }, cx);
  const hello = { kind: "hello", migrationId: cx.id, token: cx.token, attempt: 1, received: 0 } as const;
  cx.restartedStreams.accept({ ...hello, generation: 0, restarted: true }, memoryTransfer().source);
  return { ...phase, end: await served };
}

t.test("a QEMU that has ended leaves nothing here: the journal says so, and why", async (t) => {
  const { end, record, written } = await serving(t, "gone");
  t.match(end, { kind: "stranded", fault: { code: "pages-lost", advice: /resolve 0123456789ab --keep source/ } });
  t.same(written, ["released"]);
  t.match(await record(), {
    kind: "released",
    reason: { code: "pages-lost", message: /Pages of the guest were lost/ },
  });
});

t.test("a QEMU that lives may be what an operator wants: its record stays as it is", async (t) => {
  const { end, written } = await serving(t, "postmigrate");
  t.match(end, { kind: "stranded", fault: { code: "pages-lost" } });
  t.same(written, []);
});

t.test(
  "a destination that cannot dial in, and needs pages of a QEMU that has ended, does not wait for ever",
  async (t) => {
    const { cx, destination } = await sourcePhase(t, "gone");
    destination.answersInTurn(["pulling"]);
    const end = await serve({ kind: "serving", paused: false, postcopy: RESUMED_POSTCOPY }, cx);
    t.match(end, { kind: "stranded", fault: { code: "pages-lost", message: /QEMU has ended/ } });
  },
);

t.test("one that has every page by now is no loss, although its source QEMU has ended", async (t) => {
  const { cx, destination } = await sourcePhase(t, "gone");
  destination.answersInTurn(["running"]);
  t.match(await serve({ kind: "serving", paused: false, postcopy: RESUMED_POSTCOPY }, cx), { kind: "releasing" });
});
