/** Tests the text of a plan, for people. */
import t from "tap";
import { planText } from "../../cli/plan-text.ts";
import type { PlanView } from "../../shared/protocol/plan-view.ts";

t.test("a plan says yes with its terms, or no with all reasons", async (t) => {
  t.equal(
    planText("web", "b:1", { accepted: true, refusals: [], negotiated: { codecs: "zstd" }, notes: ["an older agent"] }),
    "b:1 would take web\n  codecs: zstd\nNote: an older agent\n",
  );
  t.equal(
    planText("web", "b:1", {
      accepted: false,
      refusals: [{ code: "cpu-model", message: "other" }],
      negotiated: {},
      notes: [],
    }),
    "b:1 would not take web\n  - cpu-model: other\n",
  );
});

const observed: PlanView = {
  accepted: true,
  refusals: [],
  negotiated: {},
  notes: [],
  link: { bytesPerSecond: 118e6, roundTripMs: 0.4 },
  observation: {
    memoryBytes: 512 * 2 ** 20,
    zeroBytes: 200 * 2 ** 20,
    workingSetBytes: 128 * 2 ** 20,
    seconds: 5,
    dirtyBytesPerSecond: 190e6,
    dirtyCurve: [{ seconds: 0.05, bytes: 10e6 }],
    zstdRatio: 2.2,
    deltaRatio: 140,
    hostSpeed: 1.65,
    cost: {
      seconds: 6.1,
      agentCpuSeconds: 0.9,
      qemuCpuSeconds: 1.2,
      processorsWaited: 0.031,
      processorsWaitedBefore: 0,
    },
  },
  predictions: [
    {
      strategy: "stop-and-copy",
      offered: true,
      converges: "yes",
      totalSeconds: { low: 1.5, expected: 2, high: 2.5 },
      downtimeMs: { low: 1300, expected: 1800, high: 2300 },
      bytes: { low: 9e7, expected: 1e8, high: 1.1e8 },
    },
    { strategy: "precopy", offered: true, converges: "no" },
    {
      strategy: "postcopy",
      offered: false,
      converges: "unsure",
      totalSeconds: { low: 1.5, expected: 2, high: 0 },
      downtimeMs: { low: 30, expected: 40, high: 50 },
      bytes: { low: 9e7, expected: 1e8, high: 1.1e8 },
    },
  ],
  recommended: "hybrid",
  reason: "the guest dirties more than the link takes",
};

t.test("each strategy has a row, with what it rests on, what the look has cost and what to do", async (t) => {
  const text = planText("web", "b:1", observed);
  t.match(text, /Link: 118 MB\/s, round trip 0.4 ms/);
  t.match(text, /Guest: 512 MiB, of these 200 MiB zero; in 5.0 s it dirtied 128 MiB, again and again at 190 MB\/s/);
  t.match(text, /Host: 1.65 x the processors that the model's figures are of/);
  const older = { ...observed, observation: { ...observed.observation, hostSpeed: 0 } } as PlanView;
  t.notMatch(planText("web", "b:1", older), /Host:/, "the agent did not measure the host");
  t.match(
    text,
    /Looking cost: 6.1 s of tracking, 900 ms CPU of the agent, 1.2 s CPU of QEMU, .* waited 3.1 % .*\(0.0 % before\)/,
  );
  t.match(text, /stop-and-copy +2.0 s \(1.5 s to 2.5 s\) +1.8 s \(1.3 s to 2.3 s\) +100 MB \(90 MB to 110 MB\)/);
  t.match(text, /precopy +- +- +- +does not converge/);
  t.match(text, /postcopy +2.0 s \(1.5 s to no end\).*not possible here; may not converge/);
  t.match(text, /Recommended: hybrid. The guest dirties more than the link takes\n$/);
});

t.test("costs that the host does not tell are left out", async (t) => {
  const { observation, ...rest } = observed;
  if (observation === undefined) return;
  const cost = { seconds: 6.1, agentCpuSeconds: 0.9 };
  t.match(
    planText("web", "b:1", { ...rest, observation: { ...observation, cost } }),
    /Looking cost: [^,]*, [^,]*agent\n/,
  );
});
