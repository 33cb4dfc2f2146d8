/**
 * The contenders that move the guest: QEMU by itself in several ways, and Ferry with each of its parts switched off.
 */
import type { HostAgents } from "../../support/agents.ts";
import { ferryJson } from "../../support/ferry-json.ts";
import { measuredMigration } from "../../support/ferry-run.ts";
import { foundGuest } from "../../support/found-guest.ts";
import type { GuestDefinitionFile } from "../../support/guest.ts";
import { type BaselineOptions, migrateWithQemu } from "../../support/qemu-baseline.ts";
import { postcopyWithQemu } from "../../support/qemu-postcopy.ts";
import type { Rig, RigGuest, RigHost } from "../../support/rig.ts";
import type { SuiteLink } from "./links.ts";
import { type ResidualPoint, ResidualPoll, residualOf } from "./residual.ts";

export interface Scene {
  readonly rig: Rig;
  readonly guest: RigGuest;
  readonly definition: GuestDefinitionFile;
  readonly agents: ReadonlyMap<RigHost, HostAgents>;
  readonly link: SuiteLink;
  /** True if it is recorded how much is left to send over time. To ask QEMU for that costs it a little. */
  readonly watchesResidual: boolean;
}

interface Run {
  /** False if the migration did not end within the link's limit; the guest has stayed at its source then. */
  readonly completed: boolean;
  /** From the command until the guest runs at the destination and needs nothing of its source any more. */
  readonly totalSeconds: number;
  readonly downtimeMs: number | undefined;
  readonly bytesOnWire: number;
  /** The guest, at the host where it is now. */
  readonly guest: RigGuest;
  readonly residual: readonly ResidualPoint[];
  /** How many bytes of pages that were not zero Ferry took from QEMU. */
  readonly movedBytes?: number;
  /** How Ferry came to its end, where there is more than one way: by precopy or by post-copy, or given up. */
  readonly ended?: string;
}

export interface Contender {
  readonly name: string;
  readonly by: "qemu" | "ferry";
  readonly run: (scene: Scene) => Promise<Run>;
}

const PAGE_BYTES = 4096;

type Baseline = Pick<BaselineOptions, "method" | "capabilities" | "parameters">;

const qemu = (name: string, options: Baseline): Contender => ({
  name: `qemu ${name}`,
  by: "qemu",
  run: async ({ rig, guest, definition, link, watchesResidual }) => {
    const poll = new ResidualPoll();
    const giveUpAfterMs = link.limitSeconds * 1000;
    const watch = watchesResidual ? { onStarted: poll.start } : {};
    const run = await migrateWithQemu({ rig, guest, definition, giveUpAfterMs, ...options, ...watch });
    return { ...run, residual: await poll.end() };
  },
});

const qemuPostcopy = (name: string, passes: number): Contender => ({
  name: `qemu ${name}`,
  by: "qemu",
  run: async ({ rig, guest, definition, watchesResidual }) => {
    const poll = new ResidualPoll();
    const watch = watchesResidual ? { onStarted: poll.start } : {};
    const run = await postcopyWithQemu({ rig, guest, definition, preempt: true, passes, ...watch });
    return { completed: true, ...run, residual: await poll.end() };
  },
});

const ferry = (name: string, options: readonly string[]): Contender => ({
  name,
  by: "ferry",
  run: async (scene) => {
    const { rig, guest, agents, link } = scene;
    const to = rig.other(guest.host);
    const [source, destination] = [agents.get(guest.host), agents.get(to)];
    if (source === undefined || destination === undefined) throw new Error("a host has no agents");
    if (options.includes("auto"))
      await ferryJson(rig, source, ["plan", guest.name, "--to", destination.destinationAddress]);
    let output = "";
    const run = await measuredMigration(rig, {
      from: { ...source, ferryFlags: [...source.ferryFlags, "--json"] },
      to: destination,
      guest: guest.name,
      options: [...options, ...(hasNoEnd(options) ? ["--deadline", `${link.limitSeconds}s`] : [])],
      show: async (command) => {
        const process = await rig.spawn(guest.host, name, command.slice(guest.host.prefix.length));
        const { code } = await process.ended;
        output = process.output();
        return code ?? 1;
      },
    });
    const { view, totalSeconds, downtimeMs, bytesOnWire } = run;
    const moved = view.result?.completed === true;
    if (!moved && view.error?.code !== "deadline") throw new Error(`${name}: ${JSON.stringify(view.error)}\n${output}`);
    const shared = { downtimeMs, bytesOnWire, residual: residualOf(output) };
    if (!moved) return { ...shared, completed: false, totalSeconds: link.limitSeconds, guest, ended: "given up" };
    const { postcopy, pages, totalSeconds: untilTheLastPage = totalSeconds } = view.result ?? {};
    const movedBytes = PAGE_BYTES * ((pages?.captured ?? 0) - (pages?.zero ?? 0));
    const there = await foundGuest(rig, to, guest.name);
    return postcopy === undefined
      ? { ...shared, completed: true, totalSeconds, movedBytes, guest: there, ended: "precopy" }
      : { ...shared, completed: true, totalSeconds: untilTheLastPage, movedBytes, guest: there, ended: "postcopy" };
  },
});

/** True if the migration may come to no end, so that it needs a deadline. Post-copy always comes to an end. */
const hasNoEnd = (options: readonly string[]): boolean => !options.some((one) => /^(postcopy|hybrid)$/.test(one));

const ALL: readonly Contender[] = [
  qemu("precopy", { method: "plain" }),
  // the cache is larger than the largest hot set of the workloads (128 MiB): a full cache forgets what it needs next
  qemu("xbzrle", { method: "xbzrle" }),
  qemu("multifd zstd", {
    method: "plain",
    capabilities: ["multifd"],
    parameters: { "multifd-channels": 2, "multifd-compression": "zstd" },
  }),
  qemu("auto-converge", { method: "plain", capabilities: ["auto-converge"] }),
  qemuPostcopy("postcopy", 0),
  qemuPostcopy("hybrid", 2),
  ferry("ferry", ["--strategy", "precopy"]),
  ferry("ferry no delta", ["--strategy", "precopy", "--no-delta"]),
  ferry("ferry no reorder", ["--strategy", "precopy", "--no-reorder"]),
  ferry("ferry neither", ["--strategy", "precopy", "--no-delta", "--no-reorder"]),
  ferry("ferry no zstd", ["--strategy", "precopy", "--compression", "off"]),
  ferry("ferry postcopy", ["--strategy", "postcopy"]),
  ferry("ferry hybrid", ["--strategy", "hybrid"]),
  ferry("ferry auto", ["--strategy", "auto"]),
];

export const CONTENDERS: ReadonlyMap<string, Contender> = new Map(ALL.map((one) => [one.name, one]));
