/**
 * Searches every run of a world within its budget, breadth first, for the shortest run that breaks a promise, and for
 * worlds from which no end is in reach.
 */
import { destinationSteps } from "./destination-steps.ts";
import { operatorSteps } from "./operator-steps.ts";
import { brokenEnd, isSettled } from "./promises.ts";
import { RULES, type Rules } from "./rules.ts";
import { sourceSteps } from "./source-steps.ts";
import { type Manner, type Step, startOf, UNLIMITED, type World } from "./world.ts";
import { keyOf, keysAfter, worldOf } from "./world-key.ts";
import { worldSteps } from "./world-steps.ts";

export interface Scope {
  readonly manner: Manner;
  readonly faults: number;
  readonly acts: number;
  readonly wrongWords: number;
}

export interface Found {
  readonly states: number;
  /** The promise that breaks, and the names of the steps of the shortest way to where it breaks. */
  readonly broken: { readonly promise: string; readonly way: readonly string[] } | undefined;
  /** The pairs of final states that were seen. */
  readonly ends: ReadonlySet<string>;
}

/** All steps that may come next in a world. A step whose budget is used up is left out. */
export function stepsOf(world: World, manner: Manner, rules: Rules): Step[] {
  const steps: Step[] = [];
  const budget = { fault: "faults", act: "acts", wrong: "wrongWords" } as const;
  sourceSteps(world, manner, rules, add);
  destinationSteps(world, manner, rules, add);
  operatorSteps(world, manner, rules, add);
  worldSteps(world, manner, rules, add);
  return steps;

  function add(name: string, change: Partial<World>, kind: Step["kind"] = "normal", broken?: string): void {
    if (kind === "normal" || kind === "chance") {
      steps.push({ name, kind, change: tidied(world, { ...change }), broken });
      return;
    }
    const left = world[budget[kind]];
    if (left === 0) return;
    const spent = left === UNLIMITED ? left : left - 1;
    steps.push({ name, kind, change: tidied(world, { ...change, [budget[kind]]: spent }), broken });
  }
}

/** Drops the messages that no agent will take any more, since worlds that differ only by them go on alike. */
function tidied(world: World, change: { -readonly [K in keyof World]?: World[K] }): Partial<World> {
  const source = change.source ?? world.source;
  if ((change.loaded ?? world.loaded) && source !== "switching") change.loaded = false;
  const isOver = source === "released" || source === "kept" || source === "stranded";
  const hearsNoRefusal = isOver || source === "releasing" || source === "orphaned" || source === "withdrawing";
  if (isOver && (change.running ?? world.running) !== "no") change.running = "no";
  if (isOver && (change.pulling ?? world.pulling)) change.pulling = false;
  if (hearsNoRefusal && (change.refused ?? world.refused)) change.refused = false;
  if ((change.destinationQemu ?? world.destinationQemu) === "gone" && (change.mute ?? world.mute)) change.mute = false;
  const destination = change.destination ?? world.destination;
  const takesGrant = destination === "loading" || destination === "loaded" || destination === "adopting";
  const takesNote = destination === "arrived" && (change.destinationJournal ?? world.destinationJournal) === "unowned";
  if (!takesGrant && !takesNote && (change.grant ?? world.grant)) change.grant = false;
  const isDecided = destination === "discarding" || destination === "discarded" || destination === "doubled";
  if (isDecided && (change.withdraw ?? world.withdraw) !== "no") change.withdraw = "no";
  return change;
}

/** Searches all runs of a scope. @throws RangeError when there are more than `statesMax` worlds */
export function search({ manner, ...budget }: Scope, rules: Rules = RULES, statesMax = 3_000_000): Found {
  const start = keyOf(startOf(manner, budget));
  const numbers = new Map<string, number>([[start, 0]]);
  const keys = [start];
  const cameFrom = [0];
  const cameBy: string[] = [""];
  const before: number[] = [];
  const nextEdge: number[] = [];
  const lastEdge: number[] = [-1];
  const settled: number[] = [];
  const ends = new Set<string>();
  const wayTo = (number: number): string[] => {
    const way: string[] = [];
    for (let at = number; at !== 0; at = cameFrom[at] ?? 0) way.push(cameBy[at] ?? "");
    return way.reverse();
  };
  for (let at = 0; at < keys.length; at++) {
    const world = worldOf(keys[at] ?? "");
    const end = isSettled(world);
    if (end) {
      settled.push(at);
      ends.add(`${world.source} and ${world.destination}`);
      const promise = brokenEnd(world, manner);
      if (promise !== undefined) return { states: keys.length, broken: { promise, way: wayTo(at) }, ends };
    }
    const keyAfter = keysAfter(keys[at] ?? "");
    for (const { name, kind, change, broken } of stepsOf(world, manner, rules)) {
      if (broken !== undefined)
        return { states: keys.length, broken: { promise: broken, way: [...wayTo(at), name] }, ends };
      const key = keyAfter(change);
      let number = numbers.get(key);
      if (number === undefined) {
        number = keys.length;
        numbers.set(key, number);
        keys.push(key);
        cameFrom.push(at);
        cameBy.push(name);
        lastEdge.push(-1);
      }
      if (kind !== "normal") continue;
      before.push(at);
      nextEdge.push(lastEdge[number] ?? -1);
      lastEdge[number] = before.length - 1;
    }
    if (keys.length > statesMax) throw new RangeError(`more than ${statesMax} states`);
  }
  const free = new Uint8Array(keys.length);
  for (const at of settled) free[at] = 1;
  for (let at = settled.pop(); at !== undefined; at = settled.pop())
    for (let edge = lastEdge[at] ?? -1; edge >= 0; edge = nextEdge[edge] ?? -1) {
      const from = before[edge] ?? 0;
      if (free[from] === 1) continue;
      free[from] = 1;
      settled.push(from);
    }
  const stuck = free.indexOf(0);
  const broken =
    stuck < 0 ? undefined : { promise: `stuck: ${describe(worldOf(keys[stuck] ?? ""))}`, way: wayTo(stuck) };
  return { states: keys.length, broken, ends };
}

/** A world in words: every field whose value is not `false`, "no" or "none". */
export const describe = (world: World): string =>
  Object.entries(world)
    .filter(([, value]) => value !== false && value !== "no" && value !== "none")
    .map(([field, value]) => `${field} ${value}`)
    .join(", ");
