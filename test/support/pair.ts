/** Two hosts with both agents on each, and a guest that runs at the first: where the tests of whole migrations begin. */
import type { Test } from "tap";
import { closeRig } from "./after-migration.ts";
import { type AgentOptions, type HostAgents, startAgents } from "./agents.ts";
import { type GuestDefinitionFile, type GuestOptions, guestDefinition } from "./guest.ts";
import { Rig, type RigGuest, type RigOptions } from "./rig.ts";

const BOOT = { timeoutMs: 60_000 };
/** Most tests need no more. */
const MEMORY_MIB = 256;
export const IDLE = { regionMiB: 16, rate: 0 } as const;

export interface PairOptions {
  readonly guest: GuestOptions;
  readonly rig?: RigOptions;
  readonly a?: AgentOptions;
  readonly b?: AgentOptions;
}

export interface Pair {
  readonly rig: Rig;
  readonly a: HostAgents;
  readonly b: HostAgents;
  readonly guest: RigGuest;
  readonly definition: GuestDefinitionFile;
}

/** The guest beats when this returns. Closed at the end of the test, which fails when anything is left behind. */
export async function openPair(t: Test, options: PairOptions): Promise<Pair> {
  const rig = await Rig.open(options.rig);
  t.teardown(() => closeRig(rig));
  const definition = guestDefinition({ memoryMiB: MEMORY_MIB, ...options.guest });
  rig.writeDefinition(definition);
  const guest = await rig.startGuest(rig.a, definition);
  const [a, b] = await Promise.all([startAgents(rig, rig.a, options.a), startAgents(rig, rig.b, options.b)]);
  await guest.serial.waitForBeats(5, BOOT);
  return { rig, a, b, guest, definition };
}
