/** Tests the summary of a migration, for people. */
import t from "tap";
import { summaryText } from "../../cli/migration-summary.ts";
import type { MigrationView } from "../../shared/protocol/report.ts";
import { result, view } from "../support/cli-fixtures.ts";

t.test("a move is told with the parts of its downtime, and with what was sent", async (t) => {
  t.equal(
    summaryText(view({ status: "moved", result: result() })),
    `web moved to host-b:7412 in 4.2 s
  downtime     41.7 ms ± 0.31 ms: last pages 12 ms, device state 8.2 ms, load 10.5 ms, commit 11 ms
  switched     the residual of 2.1 MB fits the downtime target of 300 ms
  sent         219 MB: full 180 MB, delta 38 MB, zero 10.2 kB, device 300 kB, other 900 kB
  pages        412 345 captured, 280 000 sent (70 000 full, 150 000 delta, 60 000 zero), 120 000 coalesced, 12 345 skipped
  ratios       delta 14.2 : 1, zstd 2.08 : 1
  bitmap syncs 38
  agents       source 3.4 s CPU and 410 MiB at most, destination 1.3 s CPU and 120 MiB at most
  agreed       codecs xbzrle, zstd; strategy precopy (auto)
`,
  );
});

t.test("a verified and degraded move says so", async (t) => {
  const verified = result({
    verified: true,
    pagesCompared: 131_072,
    zstdRatio: 0,
    degradations: ["zstd was switched off"],
  });
  const text = summaryText(
    view({ status: "moved", result: { ...verified, downtime: { ...verified.downtime, verifyMs: 2500 } } }),
  );
  t.match(text, /verify 2\.5 s/);
  t.match(text, /verified +131 072 pages are identical/);
  t.match(text, /degraded +zstd was switched off/);
  t.match(text, /zstd none/);
});

t.test("for a guest that was paused no downtime is told", async (t) => {
  const downtime = {
    totalMs: 0,
    lastPagesMs: 0,
    deviceStateMs: 0,
    loadMs: 0,
    verifyMs: 0,
    commitMs: 0,
    clockErrorMs: 0,
  };
  const text = summaryText(view({ status: "moved", result: result({ paused: true, downtime }) }));
  t.match(text, /^ {2}downtime +none: the guest was paused, and still is$/m);
  t.notMatch(text, /±/);
});

t.test("a refusal lists every reason, where the guest is, and the advice", async (t) => {
  const error = {
    code: "refused",
    message: "The destination refused",
    guestNow: "the guest runs at the source",
    advice: "Mend what is listed",
    refusals: [
      { code: "free-memory", message: "too little" },
      { code: "cpu-model", message: "other\u001b[31m CPU" },
    ],
  };
  t.equal(
    summaryText(view({ status: "failed", error })),
    `web was not moved to host-b:7412
  error        refused: The destination refused
               - free-memory: too little
               - cpu-model: other?[31m CPU
  guest        the guest runs at the source
  what to do   Mend what is listed
`,
  );
});

t.test("a guest that runs at both hosts has the alarm first, and the explanation after it", async (t) => {
  const error = {
    code: "two-copies",
    message: "Somebody said cont to the QEMU of web here",
    guestNow: "the guest runs at both hosts",
    advice: "Stop the one here",
    refusals: [],
  };
  t.equal(
    summaryText(view({ status: "doubled", error })),
    `!!! web RUNS AT BOTH HOSTS, and both copies write to its disks (migration m-1)
!!! one copy runs at the source (the host of this agent), the other at the destination host-b:7412
!!! FIRST stop one of the two copies. Stop the one here
  error        two-copies: Somebody said cont to the QEMU of web here
  guest        the guest runs at both hosts
  resolve      ferry resolve m-1 --keep destination, to end the copy at the source
`,
  );
  t.match(
    summaryText(view({ status: "doubled", source: "host-a:7411" })),
    /ferry --agent host-a:7411 resolve m-1 --keep destination/,
    "the word is said at the source",
  );
});

t.test("a migration that comes to the agent's host is told from that host's side", async (t) => {
  const told = (status: MigrationView["status"]): string => summaryText(view({ status, source: "host-a:7411" }));
  t.match(told("moved"), /^web arrived from host-a:7411 in 12\.3 s\n/);
  t.match(told("failed"), /^web is not here: its migration from host-a:7411 failed\n/);
  t.match(told("cancelled"), /^web is not here: its migration from host-a:7411 was cancelled after 12\.3 s\n/);
  t.match(told("copying"), /^web from host-a:7411: receiving, for 12\.3 s \(migration m-1\)\n$/);
  t.match(told("inDoubt"), /^web is in doubt here: its migration from host-a:7411 may need your decision\n/);
  t.match(told("undoing"), /^web from host-a:7411: refused, kept until its source has heard it, for 12\.3 s/);
  t.notMatch(told("inDoubt"), /resolve/, "the agent's advice names the words that fit what it has of the guest");
  t.match(told("undoing"), /if host-a:7411 never comes back: .*--keep destination runs it here, --keep source ends/);
  t.notMatch(told("moved"), /resolve/);
});

t.test(
  "a cancelled migration shows no downtime, one in doubt how to end it, and one under way its time so far",
  async (t) => {
    const cancelled = summaryText(view({ status: "cancelled", result: result({ completed: false }) }));
    t.match(cancelled, /^web stays: its migration to host-b:7412 was cancelled after 4\.2 s/);
    t.notMatch(cancelled, /^ {2}downtime/m);
    t.match(summaryText(view({ status: "inDoubt" })), /ferry resolve m-1 --keep source\|destination/);
    t.equal(summaryText(view()), "web to host-b:7412: copying for 12.3 s (migration m-1)\n");
  },
);

t.test("control characters in what a peer says never reach the terminal", async (t) => {
  const escapes = "\u001b]0;title\u0007\u001b[2J";
  const refusals = [{ code: `a${escapes}`, message: `b${escapes}` }];
  const error = { code: `c${escapes}`, message: `d${escapes}`, guestNow: escapes, advice: escapes, refusals };
  for (const status of ["failed", "inDoubt", "undoing", "doubled"] as const)
    for (const source of [undefined, `host${escapes}`]) {
      const shown = summaryText(view({ id: `m${escapes}`, status, error, ...(source && { source }) }));
      t.notMatch(shown.replaceAll("\n", ""), /\p{Cc}/u, `${status} from ${source}`);
    }
});
