/**
 * Answers what a migration would be. It asks whether both hosts would accept the migration. On request it also looks at
 * the guest and measures the link, and predicts what each strategy would take. It moves nothing.
 */
import { MigrationFault } from "../../shared/fault.ts";
import type { LinkObservation, Wishes } from "../../shared/model/observation.ts";
import { recommend } from "../../shared/model/recommend.ts";
import type { Contract } from "../../shared/protocol/messages.ts";
import type { PlanCall, PlanView } from "../../shared/protocol/plan-view.ts";
import type { MigrateCall } from "../../shared/protocol/report.ts";
import { refuseWish } from "../../shared/protocol/strategies.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { orAborted, within } from "../../shared/runtime/deferred.ts";
import { type GuestDefinition, loadGuest } from "../../shared/runtime/guest/guest-definition.ts";
import { keepLatest } from "../../shared/runtime/keep-latest.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import { type FoundGuest, lookAtGuest } from "../guest/look-at-guest.ts";
import { askDestination } from "../migration/phases/negotiate.ts";
import type { SourceContext } from "../migration/source-context.ts";
import { negotiatedView } from "../report/negotiated-view.ts";
import { HOLD_SHARE_OF_ARENA } from "../transfer/session-options.ts";
import { measureLink } from "./measure-link.ts";
import { type Observed, observeGuest } from "./observe-guest.ts";
import { planInput } from "./plan-input.ts";
import { observationView, predictionViews } from "./plan-view.ts";

/**
 * How long after a plan its recommendation is applied to migrations, milliseconds. For this long the guest is taken to
 * behave as it did when it was looked at.
 */
const HOLDS_MS = 10 * 60_000;
/** The most plans that are remembered. */
const REMEMBERED = 100;
/** How long the destination may take to dial, after it has answered, milliseconds. */
const DIALS_WITHIN_MS = 5000;

interface Remembered {
  readonly strategy: Contract["strategy"];
  readonly reason: string;
  readonly atMs: number;
}

export class Planner {
  private readonly remembered = new Map<string, Remembered>();

  async plan(call: PlanCall, cx: SourceContext): Promise<PlanView> {
    const definition = await loadGuest(cx.call.guest, cx.config);
    const qmp = await QmpClient.connect(
      definition.qmp,
      { timeoutMs: cx.config.qmpTimeoutMs, signal: cx.cancelled },
      cx.clock,
    );
    try {
      const facts = await lookAtGuest(qmp, definition.qmp, cx);
      const { contract, link } = await this.ask(cx, definition, facts, call.observeMs > 0);
      const view: PlanView = {
        accepted: true,
        refusals: [],
        negotiated: negotiatedView(contract, facts, cx),
        notes: contract.warnings,
      };
      if (call.observeMs === 0) return view;
      if (!contract.measuresLink) return { ...view, notes: [...view.notes, OLDER_DESTINATION] };
      const observed = await observeGuest(cx, qmp, facts, call.observeMs);
      return { ...view, ...this.conclude(call, cx, { contract, link, observed }) };
    } catch (thrown) {
      const fault = MigrationFault.from(thrown);
      if (fault.code !== "refused") throw fault;
      return { accepted: false, refusals: fault.refusals, negotiated: {}, notes: [] };
    } finally {
      qmp.close();
    }
  }

  /**
   * Fills in the strategy of a migration that leaves it to the agents, where a plan of the last minutes recommends one.
   * @returns the call, and why the plan recommends its strategy; the call as it is and an empty reason where no plan
   *   applies
   */
  applied(call: MigrateCall, nowMs: number): { readonly call: MigrateCall; readonly because: string } {
    const found = this.remembered.get(keyOf(call));
    if (call.options.strategy !== "auto" || found === undefined || nowMs - found.atMs > HOLDS_MS)
      return { call, because: "" };
    const options = { ...call.options, strategy: found.strategy };
    if (refuseWish(options).length > 0) return { call, because: "" };
    return { call: { ...call, options }, because: found.reason };
  }

  private async ask(cx: SourceContext, definition: GuestDefinition, facts: FoundGuest, measure: boolean) {
    const contract = await askDestination(cx, definition, facts, { dryRun: true, measureLink: measure });
    if (!contract.measuresLink) return { contract, link: undefined };
    const channel = await within(
      orAborted(cx.dialledIn(), cx.cancelled),
      DIALS_WITHIN_MS,
      () =>
        new MigrationFault("peer-lost", `The destination did not dial ${cx.advertised} within ${DIALS_WITHIN_MS} ms`, {
          advice: "Check that the destination host reaches this agent's advertised address (advertise)",
        }),
      cx.clock,
    );
    return { contract, link: await measureLink(channel, cx.clock, cx.cancelled) };
  }

  private conclude(call: PlanCall, cx: SourceContext, seen: Seen): Partial<PlanView> {
    const { contract, observed } = seen;
    const link = capped(seen.link, cx.call.options.bandwidthBytesPerSecond);
    if (link === undefined) return {};
    const terms = {
      delta: contract.codecs.includes("xbzrle"),
      zstd: contract.codecs.includes("zstd"),
      wishes: wishesOf(call, cx),
      zstdWorkers: cx.config.transfer.zstdWorkers,
    };
    const input = planInput(observed, link, terms);
    const found = recommend(input, contract.strategies);
    // a plan of a paused guest is not remembered: every strategy copies such a guest once, and a guest that runs again
    // must not be stopped for a whole copy
    if (!observed.paused) this.remember(cx, found);
    cx.log.info({ link, observed: { ...observed, dirty: observed.dirty }, recommended: found.strategy }, "planned");
    return {
      link,
      observation: observationView(observed, input),
      predictions: predictionViews(found.predictions, contract.strategies),
      recommended: found.strategy,
      reason: found.reason,
    };
  }

  private remember(cx: SourceContext, { strategy, reason }: Pick<Remembered, "strategy" | "reason">): void {
    const key = keyOf(cx.call);
    this.remembered.delete(key);
    this.remembered.set(key, { strategy, reason, atMs: cx.clock.monotonicMs() });
    keepLatest(this.remembered, REMEMBERED);
  }
}

const OLDER_DESTINATION =
  "The destination agent does not measure the link, so nothing can be predicted; bring both agents to the same version";

interface Seen {
  readonly contract: Contract;
  readonly link: LinkObservation | undefined;
  readonly observed: Observed;
}

/** Limits the measured bandwidth of a link to the migration's bandwidth cap, bytes per second; 0 for no cap. */
const capped = (link: LinkObservation | undefined, cap: number): LinkObservation | undefined =>
  link === undefined || cap === 0 ? link : { ...link, bytesPerSecond: Math.min(cap, link.bytesPerSecond) };

/**
 * The key of a plan. A plan applies to migrations of the same guest to the same destination with the same options,
 * whichever strategy the plan was asked for.
 */
const keyOf = ({ guest, to, options }: MigrateCall): string =>
  JSON.stringify([guest, to, { ...options, strategy: "auto" }]);

function wishesOf({ robust }: PlanCall, { call, config }: SourceContext): Wishes {
  const { downtimeTargetMs, deadlineMs, delta } = call.options;
  const { arenaBytes, baseCacheBytes } = config.memory;
  return {
    downtimeTargetMs,
    deadlineMs,
    robustnessFirst: robust,
    basePages: delta ? Math.floor(baseCacheBytes / PAGE_SIZE) : 0,
    heldPagesMax: Math.floor((HOLD_SHARE_OF_ARENA * arenaBytes) / PAGE_SIZE),
    syncsPerSecond: config.transfer.syncRate,
  };
}
