/** Every interleaving of the hand-over, crashes and all: never two guests, never a fork, never stuck. */
import t from "tap";
import {
  type Mutation,
  PAUSED_START,
  POSTCOPY_START,
  START,
  type Step,
  stepsOf,
  type World,
} from "./handover-model.ts";

interface Search {
  readonly worlds: ReadonlyMap<string, { readonly world: World; readonly steps: readonly Step[] }>;
  /** The shortest way to the first world that breaks a promise, as the names of its steps. */
  readonly broken: { readonly promise: string; readonly way: readonly string[] } | undefined;
}

const keyOf = (world: World): string => JSON.stringify(world);

function brokenPromise(world: World): string | undefined {
  const here = world.sourceQemu === "running";
  const there = world.destinationQemu === "running";
  if (world.paused) return brokenPausedPromise(world);
  if (here && there) return "two guests run";
  if (here && world.ran && !world.overruled) return "a guest that ran at the destination runs at the source";
  if (world.source === "released" && world.destinationQemu !== "running" && !mayEnd(world))
    return "the source let go of a guest that does not run at the destination";
  if (world.postcopy && world.source === "released" && world.missing && !mayEnd(world))
    return "the source let go of pages that the guest misses";
  if (isOver(world) && !mayEnd(world) && here === there) return "the migration is over and no guest runs";
  return undefined;
}

/** Of a guest that was paused: nobody starts it, and one side has it. */
function brokenPausedPromise(world: World): string | undefined {
  const { source, sourceQemu, destination, destinationQemu } = world;
  if (sourceQemu === "running" || destinationQemu === "running") return "a guest that was paused was started";
  if (source === "kept" && world.ran && !world.overruled)
    return "a guest that the destination has is kept at the source";
  if (source === "released" && destinationQemu !== "loaded" && !mayEnd(world))
    return "the source let go of a guest that is not at the destination";
  const one = (source === "kept") !== (destination === "arrived");
  if (isOver(world) && !mayEnd(world) && !one) return "the migration is over, and not one side has the guest";
  return undefined;
}

/** A QEMU was killed, or the operator has let go of what may have run: then there may be no guest. */
const mayEnd = ({ killed, overruled }: World): boolean => killed || overruled;

const isOver = (world: World): boolean =>
  (world.source === "released" || world.source === "kept" || world.source === "stranded") &&
  (world.source === "stranded" ||
    world.destination === "arrived" ||
    world.destination === "discarded" ||
    world.destination === "lost");

/** Breadth first, so that what breaks a promise is found by the shortest way. */
function search(mutation: Mutation, start: World = START): Search {
  const worlds = new Map<string, { world: World; steps: readonly Step[] }>();
  const cameBy = new Map<string, { from: string; name: string }>();
  const queue: World[] = [start];
  const wayTo = (key: string): string[] => {
    const came = cameBy.get(key);
    return came === undefined ? [] : [...wayTo(came.from), came.name];
  };
  for (let world = queue.shift(); world !== undefined; world = queue.shift()) {
    const key = keyOf(world);
    if (worlds.has(key)) continue;
    const promise = brokenPromise(world);
    if (promise !== undefined) return { worlds, broken: { promise, way: wayTo(key) } };
    const steps = stepsOf(world, mutation);
    worlds.set(key, { world, steps });
    for (const step of steps) {
      const next = keyOf(step.to);
      if (worlds.has(next) || cameBy.has(next)) continue;
      cameBy.set(next, { from: key, name: step.name });
      queue.push(step.to);
    }
  }
  return { worlds, broken: undefined };
}

/** Worlds from which no end can be reached by steps that are no faults. */
function stuck({ worlds }: Search): World[] {
  const before = new Map<string, string[]>();
  for (const [key, { steps }] of worlds)
    for (const step of steps) {
      if (step.fault) continue;
      const to = keyOf(step.to);
      before.set(to, [...(before.get(to) ?? []), key]);
    }
  const ends = [...worlds].filter(([, { world }]) => isOver(world)).map(([key]) => key);
  const free = new Set(ends);
  for (let key = ends.pop(); key !== undefined; key = ends.pop())
    for (const from of before.get(key) ?? []) {
      if (free.has(from)) continue;
      free.add(from);
      ends.push(from);
    }
  return [...worlds].filter(([key]) => !free.has(key)).map(([, { world }]) => world);
}

for (const paused of [false, true])
  t.test(
    `${paused ? "a guest that was paused: " : ""}whatever is lost, repeated or reordered and whoever crashes, one guest at most, and an end in reach`,
    async (t) => {
      const found = search("none", paused ? PAUSED_START : START);
      t.equal(found.broken, undefined);
      t.comment(`${found.worlds.size} states searched`);
      t.ok(found.worlds.size > 500, "the search goes far");
      t.same(stuck(found).slice(0, 3), []);
      const ends = new Set(
        [...found.worlds.values()]
          .filter(({ world }) => isOver(world))
          .map(({ world }) => `${world.source} and ${world.destination}`),
      );
      t.ok(ends.has("released and arrived"), "it moves");
      t.ok(ends.has("kept and discarded"), "it is kept");
    },
  );

t.test("without any of the journal-first rules the search finds two guests, or one that runs twice", async (t) => {
  for (const mutation of ["no granted", "no running", "no refused"] as const)
    for (const paused of [false, true]) {
      const { broken } = search(mutation, paused ? PAUSED_START : START);
      t.ok(broken, mutation);
      const guest = paused ? "paused guest, " : "";
      t.comment(`${guest}${mutation}: ${broken?.promise} in ${broken?.way.length} steps: ${broken?.way.join("; ")}`);
    }
});

t.test("in post-copy too, and pages that a guest misses are let go by nobody", async (t) => {
  const found = search("none", POSTCOPY_START);
  t.same(found.broken, undefined);
  t.comment(`${found.worlds.size} states searched`);
  t.ok(found.worlds.size > 500, "the search goes far");
  t.same(stuck(found).slice(0, 3), []);
  const whole = [...found.worlds.values()].map(({ world }) => world).filter((world) => isOver(world) && !world.missing);
  t.ok(whole.some(({ source, destination }) => source === "released" && destination === "arrived"));
  t.ok(whole.every(({ source }) => source !== "stranded"));
  for (const mutation of ["no granted", "no running", "no refused"] as const) {
    const { broken } = search(mutation, POSTCOPY_START);
    t.ok(broken, mutation);
    t.comment(`${mutation}: ${broken?.promise} in ${broken?.way.length} steps: ${broken?.way.join("; ")}`);
  }
});
