/**
 * Moves a guest whose balloon tells QEMU which pages are free (`free-page-hint`). QEMU never sends those pages, so the
 * first pass is over when QEMU has sent all other pages, and not when every page has come.
 */
import t from "tap";
import { assertOneGuest } from "../support/after-migration.ts";
import { migrate, requireMoved } from "../support/ferry-json.ts";
import { openPair } from "../support/pair.ts";

t.setTimeout(240_000);
const NAME = "absent";
const PAGES = (256 << 20) / 4096;

const HINTS = [
  ...["-object", "iothread,id=hints"],
  ...["-device", "virtio-balloon-pci,id=balloon,free-page-hint=on,iothread=hints"],
];

t.test("a guest whose balloon tells QEMU its free pages moves by each strategy", async (t) => {
  const workload = { regionMiB: 32, rate: 20e6, drivers: ["virtio_balloon"] } as const;
  const { rig, a, b } = await openPair(t, { guest: { name: NAME, workload, extra: HINTS } });

  await t.test("--verify is refused by name, since pages that are not sent cannot be compared", async (t) => {
    const { code, answer } = await migrate(rig, a, b, NAME, ["--verify"]);
    t.match({ code, answer }, { code: 1, answer: { error: { code: "refused", guestNow: /not touched|runs at/ } } });
    t.match(answer.error?.refusals, [
      { code: "verify-free-page-hint", message: /free-page-hint=on.*leave out --verify/ },
    ]);
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
  });

  for (const [from, to, strategy] of [
    [a, b, "precopy"],
    [b, a, "stop-and-copy"],
    [a, b, "postcopy"],
    [b, a, "hybrid"],
  ] as const)
    await t.test(`the guest moves by ${strategy}`, async (t) => {
      const { progress, result } = requireMoved(await migrate(rig, from, to, NAME, ["--strategy", strategy]));
      t.equal(progress.firstPassFraction, 1);
      const { captured } = result.pages;
      // in post-copy QEMU takes no hints
      if (strategy === "precopy")
        t.ok(captured < PAGES, `fewer pages were captured, with repeats, than the guest has: ${captured} of ${PAGES}`);
      await assertOneGuest(t, rig, { name: NAME, at: to.host });
    });
});
