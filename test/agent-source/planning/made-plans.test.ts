/** Tests `MadePlans`: which plan is applied to a migration, and what it makes of the call. */
import t from "tap";
import { type MadePlan, MadePlans } from "../../../agent-source/planning/made-plans.ts";
import type { MigrateCall, MigrateOptions } from "../../../shared/protocol/report.ts";
import { loadSourceConfig } from "../../../shared/runtime/config/config.ts";
import { MIGRATE_OPTIONS } from "../../support/frames.ts";

const config = loadSourceConfig(["--tls-insecure"], {});
const MINUTE_MS = 60_000;

const asking = (options: Partial<MigrateOptions> = {}): MigrateCall => ({
  guest: "web",
  to: "host-b:7412",
  options: { ...MIGRATE_OPTIONS, ...options },
});

/** Makes a plan of a guest of 256 MiB that dirties `pages` whole pages a second, over 100 Mbit/s. */
function planOf(pages: number): MadePlan {
  return {
    observed: {
      ...{ pages: 65_536, zeroPages: 0, firstCopySeconds: 1, observedSeconds: 5, dirtyBytesPerSecond: 4096 * pages },
      ...{ workingSetPages: 5 * pages, paused: false, deltas: [], levels: [], hostSpeed: 1 },
      dirty: [{ seconds: 1, pages }],
      cost: { seconds: 6, agentCpuSeconds: 1 },
    },
    link: { bytesPerSecond: 12.5e6, roundTripMs: 1 },
    codecs: { delta: true, zstd: true },
    strategies: ["stop-and-copy", "precopy", "postcopy", "hybrid"],
  };
}

/** Remembers a plan, and applies it to a call a minute later. */
function applied(pages: number, call: MigrateCall, { planned = asking(), laterMs = MINUTE_MS } = {}) {
  const plans = new MadePlans();
  plans.remember(planned, planOf(pages), 1000);
  return plans.applied(call, config, 1000 + laterMs);
}

t.test(
  "a plan that recommends post-copy chooses it, and one that recommends precopy leaves auto as it is",
  async (t) => {
    const { call, because } = applied(30_000, asking());
    t.match(call.options.strategy, /hybrid|postcopy/);
    t.match(because, /^by the plan before: the guest dirties 123 MB\/s/);
    t.match(applied(10, asking()), { call: { options: { strategy: "auto" } }, because: /next to nothing/ });
  },
);

t.test("a plan is judged anew for another deadline, downtime or robustness", async (t) => {
  const deadline = applied(30_000, asking({ deadlineMs: 600_000, downtimeTargetMs: 500 }));
  t.match(deadline.call.options.strategy, /hybrid|postcopy/);
  const robust = applied(30_000, asking({ robust: true }));
  t.match(robust, { call: { options: { strategy: "auto" } }, because: /robustness comes first, but precopy does not/ });
});

t.test("a plan with other codecs is not used, and the operator is told so", async (t) => {
  const { call, because } = applied(30_000, asking({ compression: "off", delta: false }));
  t.equal(call.options.strategy, "auto");
  t.equal(because, "the plan before was made with other options (delta, compression), and is not used");
});

t.test("no plan is applied to a named strategy, to another destination, or after ten minutes", async (t) => {
  t.same(applied(30_000, asking({ strategy: "precopy" })), { call: asking({ strategy: "precopy" }), because: "" });
  const elsewhere = { ...asking(), to: "host-c:7412" };
  t.same(applied(30_000, elsewhere), { call: elsewhere, because: "" });
  t.same(applied(30_000, asking(), { laterMs: 11 * MINUTE_MS }), { call: asking(), because: "" });
});

t.test("a plan that was made with --verify is not used without it", async (t) => {
  const { because } = applied(30_000, asking(), { planned: asking({ verify: true }) });
  t.match(because, /other options \(verify\)/);
});
