/** Turns what was observed into the input of the model (docs/design/model.md). Pure. */
import type { CodecChoice } from "../../shared/model/codec-choice.ts";
import { bestChoice } from "../../shared/model/codec-choice.ts";
import { curveOfSamples } from "../../shared/model/dirty-curve.ts";
import {
  type LinkObservation,
  onHost,
  type PredictionInput,
  USUAL_COSTS,
  USUAL_POSTCOPY,
  type Wishes,
} from "../../shared/model/observation.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { Observed } from "./observe-guest.ts";

export interface PlanTerms {
  /** True when deltas are in the contract. */
  readonly delta: boolean;
  /** True when zstd is in the contract. */
  readonly zstd: boolean;
  readonly wishes: Wishes;
  readonly zstdWorkers: number;
}

export function planInput(observed: Observed, link: LinkObservation, terms: PlanTerms): PredictionInput {
  const { pages, zeroPages, dirty } = observed;
  const choices: CodecChoice[] = [{ level: undefined, pageBytes: PAGE_SIZE, bytesPerSecond: Number.POSITIVE_INFINITY }];
  if (terms.zstd) choices.push(...observed.levels);
  const choice = bestChoice(choices, link.bytesPerSecond, terms.zstdWorkers);
  const compressed = observed.levels.find(({ level }) => level === choice.level)?.dirtiedPageBytes ?? 0;
  const dirtiedPageBytes = compressed === 0 ? choice.pageBytes : compressed;
  return {
    guest: {
      pages,
      zeroPages,
      dirty: curveOfSamples(dirty, pages),
      firstCopyBytes: choice.pageBytes,
      dirtiedPageBytes,
      deltaBytes: deltaBytes(observed, choice.level, dirtiedPageBytes, terms.delta),
      paused: observed.paused,
    },
    link,
    costs: onHost(USUAL_COSTS, observed.hostSpeed),
    postcopy: USUAL_POSTCOPY,
    wishes: terms.wishes,
  };
}

/**
 * @returns a function from a base's age, seconds, to the encoded bytes of a page that is sent again. It interpolates
 *   linearly between the sampled ages; beyond them it gives the bytes of the nearest sampled age
 */
function deltaBytes(
  { deltas, levels }: Observed,
  level: CodecChoice["level"],
  pageBytes: number,
  delta: boolean,
): (seconds: number) => number {
  if (!delta || deltas.length === 0) return () => pageBytes;
  const ratios = levels.find((one) => one.level === level)?.deltaRatios;
  const points = deltas.map(({ seconds, pages, wholePages, bytes }, index) => {
    const whole = wholePages / pages;
    return { seconds, bytes: whole * pageBytes + (1 - whole) * bytes * (ratios?.[index] ?? 1) };
  });
  points.sort((one, other) => one.seconds - other.seconds);
  return (seconds) => {
    const after = points.findIndex((point) => point.seconds >= seconds);
    const last = points.at(-1);
    if (last === undefined || after < 0) return last?.bytes ?? pageBytes;
    const to = points[after];
    const from = points[after - 1];
    if (to === undefined || from === undefined) return to?.bytes ?? pageBytes;
    const part = (seconds - from.seconds) / Math.max(1e-9, to.seconds - from.seconds);
    return from.bytes + (to.bytes - from.bytes) * part;
  };
}
