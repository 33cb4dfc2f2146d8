/** Tests the mark of a refusal, in a real QEMU. */
import t from "tap";
import { stateOf } from "../../../agent-destination/guest/adopted-qemu.ts";
import { isMarkedRefused, markRefused, unmarkRefused } from "../../../agent-destination/guest/refusal-mark.ts";
import { loadedQemu } from "../../support/loaded-qemu.ts";

t.setTimeout(60_000);

t.test("a QEMU is marked once, is found marked afterwards, and is unmarked for an operator", async (t) => {
  const { guest } = await loadedQemu(t);
  const { qmp } = guest;
  t.equal(await isMarkedRefused(qmp), false);
  t.equal(await stateOf(guest, { kind: "waiting" }), "loaded");
  await markRefused(qmp);
  await markRefused(qmp);
  t.equal(await isMarkedRefused(qmp), true);
  t.equal(await stateOf(guest, { kind: "waiting" }), "marked");
  await unmarkRefused(qmp);
  await unmarkRefused(qmp);
  t.equal(await isMarkedRefused(qmp), false);
  t.equal(await stateOf(guest, { kind: "running" }), "loaded");
  await guest.cont(qmp);
  t.equal(await stateOf(guest, { kind: "running" }), "running");
});
