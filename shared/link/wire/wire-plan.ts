/**
 * Translates what the planner is asked and answers between its domain types and the messages of
 * proto/ferry/v1/operator.proto.
 */
import { STRATEGIES } from "../../protocol/messages.ts";
import {
  type IntervalView,
  OBSERVE_MS_MAX,
  type ObservationView,
  type PlanCall,
  type PlanView,
  type PredictionView,
} from "../../protocol/plan-view.ts";
import type { Translation } from "./proto-files.ts";
import { migrateCallWire, readNumbers, reasons, wrong } from "./wire-operator.ts";
import { flag, list, number, object, strings, text, textMap, type WireObject, word } from "./wire-read.ts";

export const planCallWire: Translation<PlanCall> = {
  toWire: ({ migration, observeMs }) => ({
    migration: migrateCallWire.toWire(migration),
    observeMs,
    // an agent of version 0.2.0 or older reads this field only
    robust: migration.options.robust,
  }),
  fromWire: (wire) => {
    const given = object(wire, "request");
    const observeMs = number(given.observeMs, "observe_ms");
    if (observeMs > OBSERVE_MS_MAX) throw wrong("observe_ms", observeMs, `at most ${OBSERVE_MS_MAX}`);
    const asked = object(given.migration, "migration");
    const options = object(asked.options ?? {}, "options");
    const robust = flag(options.robust) || flag(given.robust);
    return { migration: migrateCallWire.fromWire({ ...asked, options: { ...options, robust } }), observeMs };
  },
};

export const planWire: Translation<PlanView> = {
  toWire: (plan) => ({ ...plan }),
  fromWire: (wire) => {
    const given = object(wire, "plan");
    const view: PlanView = {
      accepted: flag(given.accepted),
      refusals: reasons(given.refusals),
      negotiated: textMap(given.negotiated),
      notes: strings(given.notes, "notes"),
    };
    if (!given.link || !given.observation) return view;
    return {
      ...view,
      link: readNumbers(object(given.link, "link"), ["bytesPerSecond", "roundTripMs"]),
      observation: observation(object(given.observation, "observation")),
      predictions: list(given.predictions, "predictions").map(prediction),
      recommended: word(given.recommended, STRATEGIES, "recommended"),
      reason: text(given.reason, "reason"),
    };
  },
};

const OBSERVATION = [
  "memoryBytes",
  "zeroBytes",
  "workingSetBytes",
  "seconds",
  "dirtyBytesPerSecond",
  "zstdRatio",
  "deltaRatio",
  "hostSpeed",
] as const;
/** The costs that are absent where the host does not tell them. */
const COST_IF_KNOWN = ["qemuCpuSeconds", "processorsWaited", "processorsWaitedBefore"] as const;

function observation(given: WireObject): ObservationView {
  const cost = object(given.cost, "cost");
  const known = COST_IF_KNOWN.filter((name) => cost[name] !== undefined && cost[name] !== null);
  return {
    ...readNumbers(given, OBSERVATION),
    dirtyCurve: list(given.dirtyCurve, "dirty_curve").map((one) => readNumbers(one, ["seconds", "bytes"])),
    cost: { ...readNumbers(cost, ["seconds", "agentCpuSeconds"]), ...readNumbers(cost, known) },
  };
}

function prediction(given: WireObject): PredictionView {
  const base = {
    strategy: word(given.strategy, STRATEGIES, "strategy"),
    offered: flag(given.offered),
    converges: text(given.converges, "converges"),
  };
  if (!given.totalSeconds) return base;
  return {
    ...base,
    totalSeconds: interval(given.totalSeconds),
    downtimeMs: interval(given.downtimeMs),
    bytes: interval(given.bytes),
  };
}

const interval = (wire: unknown): IntervalView => readNumbers(object(wire, "interval"), ["low", "expected", "high"]);
