/** Tests `SwitchPolicy`: when it lets the copy go on, drain or close, and when it switches or cancels. */
import t from "tap";
import { estimateMs } from "../../../agent-source/switchover/downtime-estimate.ts";
import { SwitchPolicy } from "../../../agent-source/switchover/switch-policy.ts";
import { busy, plan, quiet, told } from "../../support/policy-observations.ts";

t.test("the policy waits for the first pass, and for a section that leaves nothing dirty", async (t) => {
  const policy = new SwitchPolicy(plan);
  t.same(policy.decide({ ...quiet, firstPassDone: false }), { kind: "continue" });
  t.same(policy.decide({ ...quiet, drained: false }), { kind: "continue" });
});

t.test("a quiet guest is switched at once", async (t) => {
  const decision = new SwitchPolicy(plan).decide(quiet);
  t.equal(decision.kind, "switch");
  t.match(decision.kind === "switch" && decision.reason, /fits: estimated downtime \d+ ms of 300 ms/);
});

t.test("held pages go once the rest fits, while the guest runs, and are held again when it does not", async (t) => {
  const policy = new SwitchPolicy(plan);
  const held = { ...quiet, residualPages: 5000, residualBytes: 200e3 };
  const most = policy.holdPages(quiet);
  t.ok(most > 5000, `${most} pages`);
  t.same(policy.decide(held), { kind: "drain" });
  t.equal(policy.holdPages(quiet), 0);
  t.equal(policy.decide(quiet).kind, "switch", "what is left then is what the last sweep found");
  const again = new SwitchPolicy(plan);
  again.decide(held);
  t.same(again.decide({ ...held, residualBytes: 100e6 }), { kind: "continue" });
  t.equal(again.holdPages(quiet), most);
});

t.test("a migration whose residual is beyond the target goes on, however long it takes", async (t) => {
  const policy = new SwitchPolicy(plan);
  for (let i = 0; i < 100; i++)
    t.same(policy.decide({ ...quiet, residualBytes: 100e6, elapsedMs: i * 1e6 }), { kind: "continue" });
});

t.test("pages that wait for the link are left to drain, for as long as they become fewer", async (t) => {
  const waiting = { ...quiet, backlogged: true, residualPages: 12_000, residualBytes: 10e6 };
  const policy = new SwitchPolicy(plan);
  let elapsedMs = 1000;
  for (let residualPages = 12_000; residualPages > 6000; residualPages -= 300, elapsedMs += 10)
    t.same(policy.decide({ ...waiting, elapsedMs, residualPages }), { kind: "drain" });
  const rest = { ...waiting, residualPages: 6000 };
  t.same(policy.decide({ ...rest, elapsedMs: elapsedMs + 1 }), { kind: "drain" }, "it is too soon to tell");
  elapsedMs += 110;
  policy.decide({ ...rest, elapsedMs });
  t.same(policy.decide({ ...rest, elapsedMs: elapsedMs + 110 }), { kind: "drain" }, "held pages go first");
  t.equal(policy.decide({ ...rest, elapsedMs: elapsedMs + 220 }).kind, "switch", "the pages become no fewer");
  const drained = new SwitchPolicy(plan);
  t.same(drained.decide(waiting), { kind: "drain" });
  t.equal(drained.decide({ ...quiet, backlogged: true }).kind, "switch", "so few pages are not worth a wait");
});

t.test("what is on its way is left to arrive, for as long as it becomes less", async (t) => {
  const policy = new SwitchPolicy(plan);
  t.same(policy.decide({ ...quiet, inFlightBytes: 20e6 }), { kind: "drain" });
  t.same(policy.decide({ ...quiet, inFlightBytes: 10e6, elapsedMs: 1110 }), { kind: "drain" });
  t.equal(policy.decide({ ...quiet, inFlightBytes: 1e6, elapsedMs: 1190 }).kind, "switch");
});

t.test("zero pages that the destination must still load are awaited, although they are few bytes", async (t) => {
  const policy = new SwitchPolicy(plan);
  const idle = { ...quiet, residualPages: 0, residualBytes: 0, sweptPages: 0 };
  t.equal(estimateMs({ ...idle, inFlightZeroPages: 130_000 }) - estimateMs(idle), 130);
  t.same(policy.decide({ ...idle, inFlightZeroPages: 130_000 }), { kind: "drain" });
  t.same(policy.decide({ ...idle, inFlightZeroPages: 60_000, elapsedMs: 1110 }), { kind: "drain" });
  t.equal(policy.decide({ ...idle, inFlightZeroPages: 5000, elapsedMs: 1190 }).kind, "switch");
});

t.test("the estimate counts the residual, the flight, the sweep, round trips and work for each page", async (t) => {
  const base = estimateMs({ ...quiet, residualPages: 0, residualBytes: 0, sweptPages: 0 });
  t.equal(estimateMs({ ...quiet, residualPages: 0, residualBytes: 12.5e6, sweptPages: 0 }) - base, 100);
  t.equal(
    estimateMs({ ...quiet, residualPages: 0, residualBytes: 0, sweptPages: 0, inFlightBytes: 1.25e6 }) - base,
    10,
  );
  t.equal(estimateMs({ ...quiet, residualPages: 1000, residualBytes: 0, sweptPages: 0 }) - base, 10);
  t.equal(estimateMs({ ...quiet, residualPages: 0, residualBytes: 0, sweptPages: 0, roundTripMs: 11 }) - base, 20);
  t.equal(estimateMs({ ...quiet, residualPages: 0, residualBytes: 0, sweptPages: 1000, bytesPerPage: 125 }) - base, 11);
});

t.test("a busy guest is closed in on, and switched when the sweeps stop shrinking", async (t) => {
  const policy = new SwitchPolicy(plan);
  t.same(policy.decide({ ...quiet, sweptPages: 4000 }), { kind: "close" });
  t.same(policy.decide({ ...quiet, sweptPages: 2000 }), { kind: "continue" });
  t.same(policy.decide({ ...quiet, sweptPages: 1000 }), { kind: "continue" });
  const decision = policy.decide({ ...quiet, sweptPages: 950 });
  t.equal(decision.kind, "switch");
  t.match(decision.kind === "switch" && decision.reason, /local minimum after 3 closing sweeps$/);
});

t.test("closing goes on while the encoded residual shrinks, although the sweeps do not", async (t) => {
  const policy = new SwitchPolicy(plan);
  const closing = { ...quiet, sweptPages: 1000 };
  t.same(policy.decide({ ...closing, residualBytes: 25e6 }), { kind: "drain" }, "held pages go first");
  t.same(policy.decide({ ...closing, residualBytes: 25e6 }), { kind: "close" });
  t.same(policy.decide({ ...closing, residualBytes: 15e6 }), { kind: "continue" });
  t.same(policy.decide({ ...closing, residualBytes: 8e6 }), { kind: "continue" });
  t.equal(policy.decide({ ...closing, residualBytes: 8e6 }).kind, "switch");
});

t.test(
  "a migration that does not converge is stalled, goes on, and switches at a later minimum that fits",
  async (t) => {
    const policy = new SwitchPolicy(plan);
    const busy = { ...quiet, residualBytes: 100e6 };
    let elapsedMs = 0;
    for (; elapsedMs < 20_000; elapsedMs += 50) t.same(policy.decide({ ...busy, elapsedMs }), { kind: "continue" });
    t.ok(policy.stalledMs(elapsedMs) > 10_000, `${policy.stalledMs(elapsedMs)} ms`);
    const decision = policy.decide({ ...quiet, elapsedMs });
    t.equal(decision.kind, "switch");
    t.match(decision.kind === "switch" && decision.reason, /local minimum.*; it did not converge for 1\d\.\d s$/);
  },
);

t.test("observations between drained sections, and while the link is down, make no stall", async (t) => {
  const policy = new SwitchPolicy(plan);
  const busy = { ...quiet, residualBytes: 100e6 };
  for (let elapsedMs = 0; elapsedMs < 20_000; elapsedMs += 50)
    policy.decide(
      elapsedMs % 100 === 0 ? { ...busy, elapsedMs, drained: false } : { ...busy, elapsedMs, linkIsDown: true },
    );
  t.equal(policy.totalStalledMs(20_000), 0);
});

t.test("a deadline that ends a stall says how long the stall was", async (t) => {
  const policy = new SwitchPolicy({ ...plan, deadlineMs: 20_000 });
  for (let elapsedMs = 0; elapsedMs < 20_000; elapsedMs += 50)
    policy.decide({ ...quiet, residualBytes: 100e6, elapsedMs });
  const decision = policy.decide({ ...quiet, residualBytes: 100e6, elapsedMs: 20_000 });
  t.match(decision.kind === "cancel" && decision.reason, /target 300 ms; it did not converge for 1\d\.\d s$/);
});

t.test("a single closing sweep is reported in the singular", async (t) => {
  const decision = new SwitchPolicy(plan).decide({ ...quiet, sweptPages: 10 });
  t.match(decision.kind === "switch" && decision.reason, /after 1 closing sweep$/);
});

t.test("closing that gets nowhere is given up, and the capture is paced again", async (t) => {
  const policy = new SwitchPolicy(plan);
  t.same(policy.decide({ ...quiet, sweptPages: 4000 }), { kind: "close" });
  const kinds: string[] = [];
  for (let i = 0; i < 12; i++) kinds.push(policy.decide({ ...quiet, residualBytes: 1e9 }).kind);
  t.equal(kinds.at(-1), "pace");
  t.notOk(kinds.includes("switch"));
});

t.test("at the deadline the policy does what was agreed on", async (t) => {
  const late = { ...quiet, elapsedMs: 5000, residualBytes: 1e9, firstPassDone: false, drained: false };
  const cancel = new SwitchPolicy({ ...plan, deadlineMs: 5000 }).decide(late);
  t.equal(cancel.kind, "cancel");
  t.match(cancel.kind === "cancel" && cancel.reason, /deadline of 5000 ms/);
  const force = new SwitchPolicy({ ...plan, deadlineMs: 5000, onDeadline: "force" }).decide(late);
  t.equal(force.kind, "switch");
  t.same(new SwitchPolicy({ ...plan, deadlineMs: 5001 }).decide(late).kind, "continue");
});

t.test("stop-and-copy switches before anything was copied", async (t) => {
  const decision = new SwitchPolicy({ ...plan, strategy: "stop-and-copy" }).decide({
    ...quiet,
    firstPassDone: false,
    drained: false,
  });
  t.equal(decision.kind, "switch");
});

t.test("fewer pages are held on a slow link and for a short target", async (t) => {
  const policy = new SwitchPolicy(plan);
  const fast = policy.holdPages(quiet);
  t.ok(policy.holdPages({ ...quiet, bytesPerSecond: 1e6 }) < fast);
  t.ok(new SwitchPolicy({ ...plan, downtimeTargetMs: 50 }).holdPages(quiet) < fast);
});

t.test("post-copy begins a moment after the stream, so that the guest finds what it needs first", async (t) => {
  const policy = new SwitchPolicy({ ...plan, strategy: "postcopy" });
  const copying = { ...busy, firstPassDone: false };
  t.same(policy.decide({ ...copying, begun: false, elapsedMs: 900 }), { kind: "continue" });
  t.same(policy.decide({ ...copying, elapsedMs: 1000 }), { kind: "continue" });
  t.same(policy.decide({ ...copying, elapsedMs: 1400 }), { kind: "continue" });
  t.same(policy.decide({ ...copying, elapsedMs: 1450, linkIsDown: true }), { kind: "continue" });
  t.match(policy.decide({ ...copying, elapsedMs: 1450 }), { kind: "switch", into: "postcopy" });
});

t.test("post-copy of a guest whose pages were all sent has nothing to wait for", async (t) => {
  const policy = new SwitchPolicy({ ...plan, strategy: "postcopy" });
  t.match(policy.decide(quiet), { kind: "switch", into: "postcopy" });
});

t.test("hybrid goes into post-copy when all but the hottest pages were sent, or each was sent once", async (t) => {
  const hybrid = { ...plan, strategy: "hybrid" } as const;
  const one = new SwitchPolicy(hybrid);
  t.same(one.decide({ ...busy, firstPassDone: false }), { kind: "continue" });
  t.same(one.decide(busy), { kind: "continue" });
  t.same(one.decide({ ...busy, backlogged: false, linkIsDown: true }), { kind: "continue" });
  t.match(one.decide({ ...busy, backlogged: false }), { into: "postcopy", reason: /^hybrid: all but the hottest/ });
  const other = new SwitchPolicy(hybrid);
  t.same(other.decide({ ...busy, drained: false, sentPages: 1000 }), { kind: "continue" });
  t.same(other.decide({ ...busy, drained: false, sentPages: 30_999 }), { kind: "continue" });
  t.match(other.decide({ ...busy, drained: false, sentPages: 31_000 }), { into: "postcopy", reason: /sent once/ });
});

t.test(
  "hybrid that fits the target ends as precopy; with a deadline, post-copy must fit into the time left",
  async (t) => {
    const fits = new SwitchPolicy({ ...plan, strategy: "hybrid" });
    const calm = { ...quiet, sweptPages: 10 };
    t.match([fits.decide(calm), fits.decide(calm)], [{}, {}]);
    t.match(fits.decide(calm), { kind: "switch", into: "destination" });
    const late = new SwitchPolicy({ ...plan, strategy: "hybrid", deadlineMs: 1200 });
    t.same(late.decide({ ...busy, backlogged: false }), { kind: "continue" });
    t.equal(late.decide({ ...busy, backlogged: false, elapsedMs: 1200 }).kind, "cancel");
  },
);

t.test("at the deadline post-copy begins where that was agreed on, once the link is up", async (t) => {
  const policy = new SwitchPolicy({ ...plan, deadlineMs: 500, onDeadline: "postcopy" });
  t.same(policy.decide({ ...busy, linkIsDown: true }), { kind: "continue" });
  t.match(policy.decide(busy), { kind: "switch", into: "postcopy", reason: /deadline of 500 ms/ });
});

const hybrid = { ...plan, strategy: "hybrid" } as const;

t.test("precopy and stop-and-copy never switch into post-copy", async (t) => {
  for (const strategy of ["precopy", "stop-and-copy"] as const)
    t.match(told(new SwitchPolicy({ ...plan, strategy }), quiet), /^switch into destination/);
});

t.test("hybrid goes into post-copy only once it is known what deltas save", async (t) => {
  const policy = new SwitchPolicy(hybrid);
  const guessed = { ...busy, drained: false, resendCostIsMeasured: false };
  policy.decide(guessed);
  t.same(policy.decide({ ...guessed, sentPages: 31_000 }), { kind: "continue" });
  t.match(policy.decide({ ...guessed, sentPages: 31_000, resendCostIsMeasured: true }), { into: "postcopy" });
});

t.test("hybrid switches into post-copy when it does not converge, although pages wait for the link", async (t) => {
  const policy = new SwitchPolicy(hybrid);
  let elapsedMs = 0;
  let decision = "continue";
  for (; decision === "continue" && elapsedMs < 60_000; elapsedMs += 50)
    decision = told(policy, { ...busy, backlogged: true, elapsedMs });
  t.match(decision, /^switch into postcopy: hybrid: it does not converge/);
  t.ok(elapsedMs > 1000, `${elapsedMs} ms`);
});

t.test("no policy switches into post-copy while the link is down, whatever the reason would be", async (t) => {
  const down = { ...busy, elapsedMs: 5000, linkIsDown: true };
  for (const which of [
    { ...plan, strategy: "postcopy" },
    hybrid,
    { ...plan, deadlineMs: 5000, onDeadline: "postcopy" },
    { ...hybrid, deadlineMs: 5000, onDeadline: "postcopy" },
  ] as const)
    t.equal(told(new SwitchPolicy(which), down), "continue");
});

t.test("a link that is down ends the closing sweeps, and they are counted anew when it is up again", async (t) => {
  const policy = new SwitchPolicy(plan);
  const shrinking = { ...quiet, sweptPages: 600 };
  t.same(policy.decide(shrinking), { kind: "close" });
  t.same(policy.decide({ ...shrinking, linkIsDown: true }), { kind: "pace" });
  t.same(policy.decide({ ...shrinking, linkIsDown: true }), { kind: "continue" });
  t.same(policy.decide(shrinking), { kind: "close" });
  t.match(told(policy, quiet), /local minimum after 1 closing sweep$/);
});

t.test("nothing is decided about a paused guest: QEMU completes by itself, or the deadline comes", async (t) => {
  const still = { ...quiet, paused: true };
  for (const strategy of ["precopy", "stop-and-copy", "postcopy", "hybrid"] as const)
    t.same(new SwitchPolicy({ ...plan, strategy }).decide(still), { kind: "continue" });
  const late = { ...plan, deadlineMs: 500 };
  t.match(new SwitchPolicy(late).decide(still), { kind: "cancel", reason: /the guest is paused, and not copied yet/ });
  t.same(
    new SwitchPolicy({ ...late, onDeadline: "force" }).decide(still),
    { kind: "continue" },
    "there is nothing to force",
  );
});
