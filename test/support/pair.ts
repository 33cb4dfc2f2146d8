/**
 * Opens two hosts with both agents on each, and a guest that runs at host a. Tests of whole migrations begin with that.
 */
import { join } from "node:path";
import type { Test } from "tap";
import { closeRig } from "./after-migration.ts";
import { type AgentOptions, type HostAgents, startAgents } from "./agents.ts";
import { type GuestDefinitionFile, type GuestOptions, guestDefinition } from "./guest.ts";
import { Rig, type RigGuest, type RigHost, type RigOptions } from "./rig.ts";
import { TestCa, tlsFlags } from "./tls.ts";

const BOOT = { timeoutMs: 60_000 };
/** The memory of a guest for which a test asks no other. Most tests need no more. */
const MEMORY_MIB = 256;
/** A workload that writes nothing. */
export const IDLE = { regionMiB: 16, rate: 0 } as const;

export interface PairOptions {
  readonly guest: GuestOptions;
  readonly rig?: RigOptions;
  readonly a?: AgentOptions;
  readonly b?: AgentOptions;
  /** Gives further flags of an agent, which may depend on the rig's directories. */
  readonly flags?: (rig: Rig, host: RigHost, kind: "source" | "destination") => readonly string[];
  /** True if the agents accept only each other's certificates and the operator's. @default false: all is in clear */
  readonly tls?: boolean;
  /** Names on the agents' list of peers beside a and b, each with a certificate. */
  readonly morePeers?: readonly string[];
  /** Called before the guest is started. */
  readonly prepare?: (rig: Rig) => void;
}

export interface Pair {
  readonly rig: Rig;
  readonly a: HostAgents;
  readonly b: HostAgents;
  readonly guest: RigGuest;
  readonly definition: GuestDefinitionFile;
  readonly ca?: TestCa;
}

/**
 * Opens a pair and waits for the guest's heartbeats. The pair is closed at the end of the test, which fails if anything
 * is left behind.
 */
export async function openPair(t: Pick<Test, "teardown">, options: PairOptions): Promise<Pair> {
  const rig = await Rig.open(options.rig);
  t.teardown(() => closeRig(rig));
  const definition = guestDefinition({ memoryMiB: MEMORY_MIB, ...options.guest });
  rig.writeDefinition(definition);
  options.prepare?.(rig);
  const guest = await rig.startGuest(rig.a, definition);
  const ca = options.tls ? pairCa(rig, options.morePeers) : undefined;
  const [a, b] = await Promise.all([
    startAgents(rig, rig.a, flagged(rig, rig.a, options, secured(options.a, "a", ca, options.morePeers))),
    startAgents(rig, rig.b, flagged(rig, rig.b, options, secured(options.b, "b", ca, options.morePeers))),
  ]);
  await guest.serial.waitForBeats(5, BOOT);
  return { rig, a, b, guest, definition, ...(ca === undefined ? {} : { ca }) };
}

const flagged = (rig: Rig, host: RigHost, { flags }: PairOptions, given: AgentOptions = {}): AgentOptions =>
  flags === undefined
    ? given
    : {
        ...given,
        source: [...(given.source ?? []), ...flags(rig, host, "source")],
        destination: [...(given.destination ?? []), ...flags(rig, host, "destination")],
      };

const pairCa = (rig: Rig, more: readonly string[] = []): TestCa =>
  new TestCa(join(rig.folder, "tls")).make(
    `a=${rig.a.address}`,
    `b=${rig.b.address}`,
    "operator",
    "stranger",
    ...more.map((name) => `${name}=${rig.a.address}`),
  );

function secured(
  options: AgentOptions = {},
  name: string,
  ca: TestCa | undefined,
  more: readonly string[] = [],
): AgentOptions {
  if (ca === undefined) return options;
  const flags = tlsFlags(ca.files(name), { peers: ["a", "b", ...more].join(), operators: "operator" });
  return {
    ...options,
    source: [...flags, ...(options.source ?? [])],
    destination: [...flags, ...(options.destination ?? [])],
    ferry: tlsFlags(ca.files("operator")),
  };
}
