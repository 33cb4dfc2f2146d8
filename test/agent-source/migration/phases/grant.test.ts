/** Tests the first grant of a guest that somebody has started at the source meanwhile. */
import t from "tap";
import { grant } from "../../../../agent-source/migration/phases/grant.ts";
import type { Loaded } from "../../../../agent-source/migration/source-state.ts";
import type { TransferSession } from "../../../../agent-source/transfer/transfer-session.ts";
import { sourcePhase } from "../../../support/source-cx.ts";

t.test("the grant is never sent, since the copy at the destination is older than what ran at the source", async (t) => {
  const { cx, record, destination } = await sourcePhase(t, "running");
  // everything that is read before anything is said
  const session = {
    runs: { standsStill: false },
    paused: false,
    kept: { paused: false },
  } as unknown as TransferSession;
  const loaded = { session } as Loaded;
  t.match(await grant({ kind: "granting", loaded }, cx), { kind: "inDoubt", fault: { message: /has started it/ } });
  t.match(await record(), { kind: "granted", withdrawn: true });
  t.ok(cx.doubt.isWithdrawn, "the grant is not repeated if the source QEMU ends before the next look");
  t.same(destination.asked, []);
});
