/**
 * Answers what a migration would be. It asks whether both hosts would accept the migration. On request it also looks at
 * the guest and measures the link, and predicts what each strategy would take. It moves nothing.
 */
import { MigrationFault } from "../../shared/fault.ts";
import type { LinkObservation } from "../../shared/model/observation.ts";
import { recommend } from "../../shared/model/recommend.ts";
import type { Contract } from "../../shared/protocol/messages.ts";
import type { PlanCall, PlanView } from "../../shared/protocol/plan-view.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { orAborted, within } from "../../shared/runtime/deferred.ts";
import { type GuestDefinition, loadGuest } from "../../shared/runtime/guest/guest-definition.ts";
import { type FoundGuest, lookAtGuest } from "../guest/look-at-guest.ts";
import { askDestination } from "../migration/phases/negotiate.ts";
import type { SourceContext } from "../migration/source-context.ts";
import { negotiatedView } from "../report/negotiated-view.ts";
import { inputOf, type MadePlan, type MadePlans } from "./made-plans.ts";
import { measureLink } from "./measure-link.ts";
import { type Observed, observeGuest } from "./observe-guest.ts";
import { observationView, predictionViews } from "./plan-view.ts";

/** How long the destination may take to dial, after it has answered, milliseconds. */
const DIALS_WITHIN_MS = 5000;

export class Planner {
  private readonly made: MadePlans;

  /** @param made takes what each plan has found */
  constructor(made: MadePlans) {
    this.made = made;
  }

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
      return { ...view, ...this.conclude(cx, { contract, link, observed }) };
    } catch (thrown) {
      const fault = MigrationFault.from(thrown);
      if (fault.code !== "refused") throw fault;
      return { accepted: false, refusals: fault.refusals, negotiated: {}, notes: [] };
    } finally {
      qmp.close();
    }
  }

  private async ask(cx: SourceContext, definition: GuestDefinition, facts: FoundGuest, measure: boolean) {
    // the plan is also for migrations without --robust, so both hosts are asked for all that they can do
    const options = { ...cx.call.options, robust: false };
    const asking = { ...cx, call: { ...cx.call, options } };
    const contract = await askDestination(asking, definition, facts, { dryRun: true, measureLink: measure });
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

  private conclude(cx: SourceContext, { contract, link, observed }: Seen): Partial<PlanView> {
    if (link === undefined) return {};
    const codecs = { delta: contract.codecs.includes("xbzrle"), zstd: contract.codecs.includes("zstd") };
    const plan: MadePlan = { observed, link, codecs, strategies: contract.strategies };
    const input = inputOf(plan, cx.call.options, cx.config);
    const found = recommend(input, contract.strategies);
    // a plan of a paused guest is not remembered: every strategy copies such a guest once, and a guest that runs again
    // must not be stopped for a whole copy
    // a plan of one strategy has asked the hosts for no other
    if (!observed.paused && cx.call.options.strategy === "auto")
      this.made.remember(cx.call, plan, cx.clock.monotonicMs());
    cx.log.info({ link, observed: { ...observed, dirty: observed.dirty }, recommended: found.strategy }, "planned");
    return {
      link: input.link,
      observation: observationView(observed, input),
      predictions: predictionViews(found.predictions, contract.strategies),
      recommended: found.strategy,
      reason: found.reason,
    };
  }
}

const OLDER_DESTINATION =
  "The destination agent does not measure the link now, so nothing can be predicted. It measures as many links as it may have migrations (migrations.max) already, or it is too old: plan again, or bring both agents to the same version";

interface Seen {
  readonly contract: Contract;
  readonly link: LinkObservation | undefined;
  readonly observed: Observed;
}
