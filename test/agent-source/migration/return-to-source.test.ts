/** Tests `runAtSource`: when the source agent starts a guest that its migration has stopped. */
import t from "tap";
import { runAtSource } from "../../../agent-source/migration/return-to-source.ts";
import { GUEST_RUNS_HERE, sourceRecord } from "../../../agent-source/migration/source-context.ts";
import type { Undo } from "../../../agent-source/migration/source-state.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { eventually } from "../../support/bounded.ts";
import { sourcePhase } from "../../support/source-cx.ts";

const STOPPED = { touched: true, accepted: true, mayBeWhole: true, isRetired: true, paused: false } as const;

t.test("a guest that was not granted is started, and so is one whose grant was given back", async (t) => {
  for (const [kind, granted] of [
    ["plan", "no"],
    ["plan", "unsaid"],
    ["granted", "givenBack"],
  ] as const) {
    const { cx, qemu } = await sourcePhase(t, "postmigrate");
    await cx.journal.write(cx.id, sourceRecord(cx, kind));
    t.same(await runAtSource({ ...STOPPED, granted }, cx), { kind: "here", guestNow: GUEST_RUNS_HERE });
    t.same(qemu.said, ["cont"], `the journal says ${kind}, and the grant is ${granted}`);
  }
});

t.test("a guest is not started while the journal says that it is granted and nobody has refused it", async (t) => {
  const undo: Undo = { ...STOPPED, granted: "unsaid" };
  const { cx, qemu } = await sourcePhase(t, "postmigrate");
  await cx.journal.write(cx.id, sourceRecord(cx, "granted"));
  cx.report.failed(new MigrationFault("interrupted", "The agent has started again"), "");
  const ran = runAtSource(undo, cx);
  const isTold = (): true | undefined => (cx.report.view().error?.guestNow.includes("granted") ? true : undefined);
  await eventually(isTold, { timeoutMs: 20_000, what: "the operator to be told why the guest stands still" });
  t.same(qemu.said, []);
  await cx.journal.write(cx.id, sourceRecord(cx, "plan"));
  t.match(await ran, { guestNow: GUEST_RUNS_HERE });
  t.same(qemu.said, ["cont"]);
});
