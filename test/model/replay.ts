/**
 * Replays a schedule: runs that have the given steps in their order, and otherwise only steps that come to pass by
 * themselves.
 */
import { brokenEnd, isSettled } from "./promises.ts";
import { RULES, type Rules } from "./rules.ts";
import { describe, type Scope, stepsOf } from "./search.ts";
import { startOf, UNLIMITED, type World } from "./world.ts";
import { keyOf, keysAfter, worldOf } from "./world-key.ts";

export interface Run {
  readonly way: readonly string[];
  readonly world: World;
  /** The promise that the last step of the run breaks; undefined when it breaks none. */
  readonly broken: string | undefined;
}

export interface Schedule {
  readonly manner: Scope["manner"];
  /**
   * The beginnings of the names of the steps, in their order. A `$` at the end makes it the whole name, and a step that
   * begins with `!` follows the step before it at once.
   */
  readonly steps: readonly string[];
  /** True when no operator says a word that is not in the steps. */
  readonly alone?: boolean;
}

interface Node {
  readonly world: World;
  readonly way: readonly string[];
  /** True when the schedule is over at this node. */
  readonly isOver: boolean;
  /** The nodes from which a step that comes to pass by itself leads here. */
  readonly before: Node[];
}

interface Walked {
  readonly nodes: readonly Node[];
  /** The run to the first promise that a step breaks once the schedule is over; undefined when no step breaks one. */
  readonly broken: Run | undefined;
}

function isMeant(wanted: string, name: string): boolean {
  const text = wanted.replace(/^!/, "");
  return text.endsWith("$") ? name === text.slice(0, -1) : name.startsWith(text);
}

function walk({ manner, steps, alone = false }: Schedule, rules: Rules): Walked {
  const budget = { faults: UNLIMITED, acts: UNLIMITED, wrongWords: UNLIMITED };
  const start = keyOf(startOf(manner, budget));
  const first = { world: worldOf(start), way: [], isOver: steps.length === 0, before: [] };
  const known = new Map<string, Node>([[`0${start}`, first]]);
  const queue: { key: string; done: number; node: Node }[] = [{ key: start, done: 0, node: first }];
  let stepBroken: Run | undefined;
  for (const { key, done, node } of queue) {
    const after = keysAfter(key);
    for (const { name, kind, change, broken } of stepsOf(node.world, manner, rules)) {
      const wanted = steps[done];
      const isNext = wanted !== undefined && isMeant(wanted, name);
      const isLeft = kind !== "normal" || wanted?.startsWith("!") || (alone && name.startsWith("operator"));
      if (!isNext && isLeft) continue;
      const next = isNext ? done + 1 : done;
      const way = [...node.way, name];
      if (broken !== undefined) {
        if (next === steps.length) stepBroken ??= { world: node.world, way, broken };
        continue;
      }
      const nextKey = after(change);
      const seen = String.fromCharCode(48 + next) + nextKey;
      const there = known.get(seen);
      if (there !== undefined) {
        if (next === done) there.before.push(node);
        continue;
      }
      const made: Node = {
        world: worldOf(nextKey),
        way,
        isOver: next === steps.length,
        before: next === done ? [node] : [],
      };
      known.set(seen, made);
      queue.push({ key: nextKey, done: next, node: made });
    }
  }
  return { nodes: [...known.values()].filter(({ isOver }) => isOver), broken: stepBroken };
}

/** Finds the shortest run that has these steps and comes to such an end; undefined when there is none. */
export function runWith(schedule: Schedule, isEnd: (world: World) => boolean, rules: Rules = RULES): Run | undefined {
  const node = walk(schedule, rules).nodes.find(({ world }) => isEnd(world));
  return node === undefined ? undefined : { ...node, broken: undefined };
}

/**
 * Finds what breaks in the runs that have these steps: a promise, or that the run never comes to an end; undefined when
 * nothing does.
 */
export function breaks(schedule: Schedule, rules: Rules): Run | undefined {
  const { nodes, broken } = walk(schedule, rules);
  if (broken !== undefined) return broken;
  const settled = nodes.filter(({ world }) => isSettled(world));
  for (const { world, way } of settled) {
    const promise = brokenEnd(world, schedule.manner);
    if (promise !== undefined) return { world, way, broken: promise };
  }
  const free = new Set(settled);
  for (const node of free) for (const before of node.before) free.add(before);
  const stuck = nodes.find((node) => !free.has(node));
  return stuck === undefined ? undefined : { ...stuck, broken: `stuck: ${describe(stuck.world)}` };
}
