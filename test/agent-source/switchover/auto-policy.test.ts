/** Tests when `SwitchPolicy` goes into post-copy with `auto`, and what it says where it may not. */
import t from "tap";
import type { Prospects } from "../../../agent-source/switchover/auto-choice.ts";
import { SwitchPolicy } from "../../../agent-source/switchover/switch-policy.ts";
import { busy, plan, quiet, told } from "../../support/policy-observations.ts";

/** How a copy would go on that has no end, and of which post-copy would need four seconds. */
const endless: Prospects = {
  precopySeconds: undefined,
  postcopySeconds: 4,
  dirtiedBytesPerSecond: 80e6,
  encodedBytesPerSecond: 60e6,
  linkBytesPerSecond: 12.5e6,
};
const auto = { ...plan, mayChoosePostcopy: true } as const;

/** Lets the policy foresee the same for a second. */
function foreseen(policy: SwitchPolicy, prospects: Prospects | undefined): SwitchPolicy {
  for (let elapsedMs = 0; elapsedMs <= 1000; elapsedMs += 100) policy.foresee(prospects, elapsedMs);
  return policy;
}

t.test("auto goes into post-copy once a precopy without an end was foreseen for some time", async (t) => {
  t.match(
    told(foreseen(new SwitchPolicy(auto), endless), { ...busy, drained: false }),
    /^switch into postcopy: auto: precopy has no end in sight: .*60 MB\/s encoded.* carries 13 MB\/s; post-copy takes about 4\.0 s/,
  );
  t.equal(told(foreseen(new SwitchPolicy(auto), undefined), busy), "continue", "nothing was foreseen");
  t.equal(told(foreseen(new SwitchPolicy(auto), endless), { ...busy, linkIsDown: true }), "continue");
  const fits = foreseen(new SwitchPolicy(auto), endless);
  t.equal(told(fits, { ...quiet, sweptPages: 1000 }), "close", "a residual that fits is moved by precopy");
});

t.test("auto stays in precopy where deltas help, and where post-copy would miss the deadline", async (t) => {
  const late = foreseen(new SwitchPolicy({ ...auto, deadlineMs: 5500 }), { ...endless, postcopySeconds: 4.2 });
  t.equal(told(late, { ...busy, drained: false }), "continue");
  const deltas = { ...busy, drained: false, residualWholeBytes: 4 * busy.residualBytes };
  t.equal(told(foreseen(new SwitchPolicy(auto), endless), deltas), "continue");
});

t.test("a target that no switchover meets is no reason for post-copy, also when the copy is stalled", async (t) => {
  const policy = new SwitchPolicy({ ...auto, downtimeTargetMs: 20 });
  for (let elapsedMs = 0; elapsedMs < 60_000; elapsedMs += 50)
    t.equal(policy.decide({ ...busy, elapsedMs }).kind, "continue");
});

t.test("auto goes into post-copy when it does not converge, as hybrid does", async (t) => {
  const policy = new SwitchPolicy(auto);
  let elapsedMs = 0;
  let decision = "continue";
  for (; decision === "continue" && elapsedMs < 60_000; elapsedMs += 50)
    decision = told(policy, { ...busy, backlogged: true, elapsedMs });
  t.match(decision, /^switch into postcopy: auto: it does not converge/);
});

t.test("precopy without post-copy goes on, and its operator is told what would end it", async (t) => {
  const policy = foreseen(new SwitchPolicy(plan), endless);
  t.equal(told(policy, { ...busy, drained: false }), "continue");
  t.match(
    policy.outlook(1000),
    /^precopy has no end in sight: .*; a larger --downtime or a --deadline .* would end it$/,
  );
  const named = foreseen(new SwitchPolicy({ ...plan, onDeadline: "force", postcopyByOption: true }), endless);
  t.match(named.outlook(1000), /; a larger --downtime or --strategy auto, which goes into post-copy, would end it$/);
  policy.foresee({ ...endless, precopySeconds: 20 }, 1100);
  t.equal(policy.outlook(1100), "", "a copy that only takes long has an end");
  t.equal(foreseen(new SwitchPolicy(auto), endless).outlook(1000), "", "auto does it by itself");
});
