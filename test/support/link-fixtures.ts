/** Fixtures of the tests of the link: the calls and messages that operators and agents send. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MigrationFault } from "../../shared/fault.ts";
import type { Offer } from "../../shared/protocol/messages.ts";
import type { MigrateCall } from "../../shared/protocol/report.ts";
import type { DestinationMessage, Hello } from "../../shared/protocol/stream-messages.ts";

export type Test = { teardown(done: () => unknown): unknown };

export const call: MigrateCall = {
  guest: "web",
  to: "host-b:7412",
  options: {
    strategy: "precopy",
    downtimeTargetMs: 250,
    deadlineMs: 60_000,
    onDeadline: "force",
    bandwidthBytesPerSecond: 1e9,
    delta: false,
    reorder: true,
    compression: -20,
    verify: true,
    sharedDisksUnchecked: false,
    robust: false,
  },
};

export const offer: Offer = {
  protocolVersions: [2, 1],
  migrationId: "m-1",
  token: Buffer.from("one-time secret"),
  sourceAddress: "127.0.0.1:7411",
  dryRun: true,
  measureLink: true,
  saysKept: true,
  guest: {
    name: "web",
    definitionDigest: "00ff",
    machineType: "pc-q35-10.0",
    qemuVersion: { major: 10, minor: 0, micro: 2 },
    cpuModel: "qemu64-x86_64-cpu",
    cpuFeatures: { "1.ecx": 0xffffffff, "7.ebx": 0 },
    ramBlocks: [{ name: "pc.ram", byteLength: 2 ** 40, pageSize: 4096 }],
    paused: true,
  },
  transfer: {
    codecs: ["xbzrle", "zstd"],
    downtimeTargetMs: 300,
    deadlineMs: 0,
    onDeadline: "force",
    frameBytes: 262_144,
    creditWindowBytes: 2 ** 33,
    verify: true,
    strategies: ["precopy"],
    strategy: "precopy",
    postcopyMayFollow: false,
  },
};

export const refusal = new MigrationFault("refused", "host-b refuses web: 2 reasons", {
  advice: "Größeren Host nehmen – or free memory there",
  guestNow: "the guest runs at the source",
  refusals: [
    { code: "memory", message: "8 GiB needed, 4 GiB free" },
    { code: "machine-type-unknown", message: "pc-q35-11.0 is not known to QEMU 10.0 — 需要升级" },
  ],
});

export const unexpected = (): never => {
  throw new MigrationFault("internal", "not expected");
};

/** Makes a folder whose path is short enough for sockets. It is removed at the end of the test. */
export function folder(t: Test): string {
  const made = mkdtempSync(join(tmpdir(), "ferry-"));
  t.teardown(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

export const hello: Hello = {
  kind: "hello",
  migrationId: "m-1",
  token: Buffer.from("secret"),
  attempt: 1,
  received: 0,
  generation: 0,
  restarted: false,
};

export const FAILURE = { kind: "failure", code: "internal", message: "no", refusedToken: new Uint8Array() } as const;
const USAGE = { agentCpuSeconds: 0, agentPeakMemoryBytes: 0 };
export const RUNNING: DestinationMessage = { kind: "running", epoch: 1, resumedAtUs: 1, grantedAtUs: 1, ...USAGE };
export const COMPLETE: DestinationMessage = {
  kind: "complete",
  completedAtUs: 1,
  service: { requests: 0, medianMs: 0, p99Ms: 0, maxMs: 0 },
  ...USAGE,
};
