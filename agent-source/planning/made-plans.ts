/**
 * Remembers what plans have found, so that a migration with `auto` knows from its beginning what a plan of the last
 * minutes would recommend for it. The guest is not looked at again: what was seen is judged anew by what the migration
 * asks for, which may be another deadline or downtime target than the plan's. Nothing here touches a guest.
 */
import type { LinkObservation, Wishes } from "../../shared/model/observation.ts";
import { recommend } from "../../shared/model/recommend.ts";
import type { Strategy } from "../../shared/protocol/messages.ts";
import type { MigrateCall, MigrateOptions } from "../../shared/protocol/report.ts";
import { isPostcopy, offeredStrategies, refuseWish } from "../../shared/protocol/strategies.ts";
import type { SourceConfig } from "../../shared/runtime/config/config.ts";
import { keepLatest } from "../../shared/runtime/keep-latest.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import { HOLD_SHARE_OF_ARENA } from "../transfer/session-options.ts";
import type { Observed } from "./observe-guest.ts";
import { type PlanTerms, planInput } from "./plan-input.ts";

/**
 * How long after a plan it is applied to migrations, milliseconds. For this long the guest is taken to behave as it did
 * when it was looked at.
 */
const HOLDS_MS = 10 * 60_000;
/** The most plans that are remembered. */
const REMEMBERED = 100;

/** What a plan has found. */
export interface MadePlan {
  readonly observed: Observed;
  /** The link as it was measured, without the operator's cap. */
  readonly link: LinkObservation;
  /** The codecs of the contract. */
  readonly codecs: Pick<PlanTerms, "delta" | "zstd">;
  /** The strategies of the contract. */
  readonly strategies: readonly Strategy[];
}

/** A call with the strategy that a plan recommends. */
export interface Applied {
  readonly call: MigrateCall;
  /** What the operator is told about the plan, such as "by the plan before: …"; empty where there was no plan. */
  readonly because: string;
}

type Limits = Pick<SourceConfig, "memory" | "transfer">;

export class MadePlans {
  private readonly made = new Map<string, MadePlan & { readonly options: MigrateOptions; readonly atMs: number }>();

  remember(call: MigrateCall, plan: MadePlan, nowMs: number): void {
    const key = keyOf(call);
    this.made.delete(key);
    this.made.set(key, { ...plan, options: call.options, atMs: nowMs });
    keepLatest(this.made, REMEMBERED);
  }

  /**
   * Fills in the strategy of a migration that leaves it to the agents, where a plan of the last minutes recommends
   * post-copy for it. A plan that recommends precopy changes nothing: `auto` begins with precopy.
   */
  applied(call: MigrateCall, config: Limits, nowMs: number): Applied {
    const { options } = call;
    const plan = this.made.get(keyOf(call));
    if (options.strategy !== "auto" || plan === undefined || nowMs - plan.atMs > HOLDS_MS) return { call, because: "" };
    const other = CODED.filter((name) => options[name] !== plan.options[name]);
    if (other.length > 0)
      return { call, because: `the plan before was made with other options (${other.join(", ")}), and is not used` };
    const { strategy, reason } = recommend(inputOf(plan, options, config), offeredStrategies(options, plan.strategies));
    const because = `by the plan before: ${reason}`;
    const chosen = { ...options, strategy };
    const mayBe = isPostcopy(strategy) && refuseWish(chosen).length === 0;
    return mayBe ? { call: { ...call, options: chosen }, because } : { call, because };
  }
}

/**
 * The options that change how pages are encoded, or which strategies both hosts were asked for. A plan says nothing of
 * another value of these.
 */
const CODED = ["delta", "compression", "verify"] as const satisfies readonly (keyof MigrateOptions)[];

/** The key of a plan, which applies to migrations of the same guest to the same destination. */
const keyOf = ({ guest, to }: MigrateCall): string => JSON.stringify([guest, to]);

/** Makes the model's input of what a plan has found and of what a migration asks for. */
export function inputOf({ observed, link, codecs }: MadePlan, options: MigrateOptions, config: Limits) {
  const terms = { ...codecs, wishes: wishesOf(options, config), zstdWorkers: config.transfer.zstdWorkers };
  return planInput(observed, capped(link, options.bandwidthBytesPerSecond), terms);
}

/** Limits what was measured to the migration's bandwidth cap, which is 0 where there is none. */
const capped = (link: LinkObservation, cap: number): LinkObservation =>
  cap === 0 ? link : { ...link, bytesPerSecond: Math.min(cap, link.bytesPerSecond) };

function wishesOf({ downtimeTargetMs, deadlineMs, delta, robust }: MigrateOptions, config: Limits): Wishes {
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
