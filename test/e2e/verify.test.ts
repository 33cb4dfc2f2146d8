/**
 * Tests `--verify`: it finds the one byte that a destination agent changes on purpose, and the guest stays whole at the
 * source.
 */
import t from "tap";
import { assertOneGuest } from "../support/after-migration.ts";
import { startAgent } from "../support/agents.ts";
import { migrate, requireMoved } from "../support/ferry-json.ts";
import { openPair } from "../support/pair.ts";

t.setTimeout(240_000);

t.test("--verify catches a page that came wrong", async (t) => {
  const workload = { regionMiB: 32, rate: 50e6 };
  const faulty = { destination: ["--faults=corrupt-page"] };
  const { rig, a, b } = await openPair(t, { guest: { name: "checked", workload }, b: faulty });

  await t.test("the migration fails, names the page and leaves the guest whole at the source", async (t) => {
    const { code, answer } = await migrate(rig, a, b, "checked", ["--verify"]);
    t.equal(code, 1);
    t.match(answer, {
      status: "failed",
      error: { code: "verify-mismatch", message: /0x[0-9a-f]+/, guestNow: /runs at the source/ },
    });
    await assertOneGuest(t, rig, { name: "checked", at: rig.a });
  });

  await t.test("without the fault the next attempt moves the guest, with all pages alike", async (t) => {
    await b.destination.stop();
    await startAgent(rig, rig.b, "destination");
    const { result } = requireMoved(await migrate(rig, a, b, "checked", ["--verify"]));
    t.equal(result.verified, true);
    t.ok(result.pagesCompared >= (256 << 20) / 4096, `${result.pagesCompared} pages compared`);
    await assertOneGuest(t, rig, { name: "checked", at: rig.b });
  });
});

t.test("--verify names the page to which the destination's QEMU writes the guest's new generation id", async (t) => {
  const guest = { name: "known", workload: { regionMiB: 16, rate: 10e6 }, extra: ["-device", "vmgenid,guid=auto"] };
  const { rig, a, b } = await openPair(t, { guest });
  const { result } = requireMoved(await migrate(rig, a, b, "known", ["--verify"]));
  t.match(result.verifyExceptions, [/^vmgenid: .* new generation id, in the page at 0x[0-9a-f]+000$/]);
  t.ok(result.pagesCompared >= (256 << 20) / 4096 - 1, `${result.pagesCompared} pages are alike`);
  await assertOneGuest(t, rig, { name: "known", at: rig.b });
});
