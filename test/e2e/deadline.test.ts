/**
 * Moves a guest that dirties more than the link carries: the deadline decides how the migration ends, and the result
 * tells the downtime as it was.
 */
import t from "tap";
import { systemClock } from "../../shared/runtime/clock.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { migrate, requireMoved, slowLink, startMigrate } from "../support/ferry-json.ts";
import { openPair } from "../support/pair.ts";

t.setTimeout(180_000);
const TARGET_MS = 100;

t.test("the deadline decides the migration of a guest that never fits the downtime target", async (t) => {
  // the guest writes fresh random words four times as fast as the link carries them, so neither deltas nor zstd help
  const workload = { regionMiB: 32, rate: 100e6, mode: "scramble" } as const;
  const { rig, a, b } = await openPair(t, { guest: { name: "wild", workload } });
  const slow = ["--strategy", "precopy", ...(await slowLink(rig, 200e6))];
  const options = [...slow, "--downtime", `${TARGET_MS}ms`, "--deadline", "6s"];

  await t.test("the deadline cancels a migration that does not converge, and the guest stays", async (t) => {
    const { code, answer, output } = await migrate(rig, a, b, "wild", [...options, "--deadline", "15s"]);
    t.equal(code, 1);
    t.match(answer, {
      status: "failed",
      error: { code: "deadline", message: /deadline of 15000 ms/, guestNow: /runs at the source/, advice: /force/ },
    });
    t.match(answer.error?.message, /it did not converge for \d+\.\d s/);
    const views = output.split("\n").filter((line) => line.startsWith("{"));
    const stalled = views.filter((line) => /"stalledSeconds":[1-9]/.test(line) && line.includes('"status":"copying"'));
    t.ok(stalled.length > 5, `${stalled.length} of ${views.length} views say that it does not converge`);
    t.same(
      stalled.filter((line) => line.includes("etaSeconds")),
      [],
      "no view that says so has an ETA",
    );
    const logged = a.source.output().match(/"msg":"(?:not converging|converging again|the link is down)[^"]*"/g) ?? [];
    // on a busy host the link may be silent for so long that it counts as down; the log then says that convergence is
    // not judged meanwhile
    const [began, cut] = ['"msg":"not converging"', '"msg":"the link is down: convergence is not judged meanwhile"'];
    const wrong = logged.filter((line, index) => line !== (index % 2 === 0 ? began : cut));
    t.same(wrong, [], `the log says each beginning and each end once: ${logged.length} lines`);
    t.ok(logged.length > 0);
    await assertOneGuest(t, rig, { name: "wild", at: rig.a });
  });

  await t.test("while the link is down no guest is stopped", { skip: rig.network.kind === "loopback" }, async (t) => {
    const monitor = await rig.observe(rig.a, "wild");
    let stoppedUs = 0;
    monitor.subscribe(({ event, timestampUs }) => {
      if (event === "STOP") stoppedUs = timestampUs;
    });
    const run = await startMigrate(rig, a, b, "wild", [...options, "--on-deadline", "force"]);
    await run.copying();
    await rig.network.setConnected(false);
    await run.until(/"linkDownSeconds":[1-9]/, "the link to be down");
    await run.until(/"elapsedSeconds":(?:[89]|\d\d)/, "a time after the deadline");
    t.equal(stoppedUs, 0, "the deadline has passed, and the guest runs");
    const mendedUs = systemClock.nowUs();
    await rig.network.setConnected(true);
    const { result } = requireMoved(await run.end());
    t.ok(stoppedUs > mendedUs, "the guest was stopped only when the link was back");
    t.match(result.switchReason, /forced/);
    t.match(result.degradations, [/The link was lost once/]);
    monitor.close();
    await assertOneGuest(t, rig, { name: "wild", at: rig.b });
    await rig.network.setRate(1e9);
    requireMoved(await migrate(rig, b, a, "wild", ["--strategy=precopy", "--deadline=1s", "--on-deadline=force"]));
    await slowLink(rig, 200e6);
  });

  await t.test("the guest moves when the deadline forces it, and the result tells the downtime", async (t) => {
    const { result } = requireMoved(await migrate(rig, a, b, "wild", [...options, "--on-deadline", "force"]));
    t.match(result.switchReason, /deadline of 6000 ms.*forced/);
    t.ok(result.downtime.totalMs > 3 * TARGET_MS, `downtime ${result.downtime.totalMs} ms, target ${TARGET_MS} ms`);
    t.ok(result.totalSeconds > 6 && result.totalSeconds < 30, `${result.totalSeconds} s`);
    await assertOneGuest(t, rig, { name: "wild", at: rig.b });
  });
});
