/**
 * One of everything that goes over the wire or onto the disk, with every field set: messages, calls, answers, views and
 * journal records. The tables are complete by their types, so a kind of message that is added later needs a sample.
 */
import type { Standing } from "../../shared/protocol/destination-states.ts";
import type { Contract, Offer } from "../../shared/protocol/messages.ts";
import type { DestinationRecord, SourcePostcopy, SourceRecord } from "../../shared/protocol/ownership.ts";
import type { PlanView } from "../../shared/protocol/plan-view.ts";
import type { GuestView, HeatMapBlock, MigrationStatus, MigrationView } from "../../shared/protocol/report.ts";
import type { DestinationMessage, SettleCall, SourceMessage } from "../../shared/protocol/stream-messages.ts";
import { progress, result, view } from "./cli-fixtures.ts";
import { hello, offer } from "./link-fixtures.ts";

type OneOfEach<Message extends { readonly kind: string }> = {
  readonly [Kind in Message["kind"]]: Extract<Message, { readonly kind: Kind }>;
};

const TOKEN = Buffer.from("one-time secret!");
const NOW_US = 1_790_000_000_000_000;
const USAGE = { agentCpuSeconds: 0.25, agentPeakMemoryBytes: 2 ** 34 };
const RUNNING = { epoch: 1, resumedAtUs: NOW_US, grantedAtUs: NOW_US - 900, ...USAGE };

export const FROM_SOURCE: OneOfEach<SourceMessage> = {
  welcome: { kind: "welcome", received: 7, generation: 2 },
  resume: { kind: "resume" },
  probe: { kind: "probe", sequence: 3, padding: Buffer.alloc(1000, 5) },
  layout: { kind: "layout", blocks: offer.guest.ramBlocks, ramSectionId: 2 },
  frame: {
    ...{ kind: "frame", sequence: 2 ** 33, frameKind: "pages", codec: "zstd", rawLength: 70_000 },
    ...{ checksum: Buffer.from("checksum"), body: Buffer.from("the body of a frame") },
  },
  clockPing: { kind: "clockPing", nonce: 2 ** 40, received: 2 ** 33 },
  endOfStream: { kind: "endOfStream", lastSequence: 2 ** 33 },
  verifyRequest: { kind: "verifyRequest", start: 2 ** 32, byteLength: 2 ** 20, last: true },
  grant: { kind: "grant", token: TOKEN, epoch: 1, paused: true },
  failure: { kind: "failure", code: "cancelled", message: "Genug – 足够", refusedToken: Buffer.alloc(0) },
};

export const FROM_DESTINATION: OneOfEach<DestinationMessage> = {
  hello: { ...hello, attempt: 3, received: 2 ** 33, generation: 2, restarted: true },
  ack: { kind: "ack", sequence: 9, appliedBytes: 2 ** 41 },
  clockReply: { kind: "clockReply", nonce: 3, destinationTimeUs: NOW_US },
  loaded: { kind: "loaded", lastSequence: 9, lastByteAtUs: NOW_US, loadedAtUs: NOW_US + 1 },
  pageDigests: { kind: "pageDigests", start: 4096, byteLength: 4096, digests: Buffer.alloc(16, 1), last: true },
  running: { kind: "running", ...RUNNING },
  pageRequest: { kind: "pageRequest", firstPage: 70_000, pageCount: 16 },
  pong: { kind: "pong", value: 0xffff_fffe },
  missing: { kind: "missing", firstPage: 64, pageCount: 16, bits: Buffer.from([0x81, 0x18]), last: true },
  complete: {
    ...{ kind: "complete", completedAtUs: NOW_US, ...USAGE },
    service: { requests: 12, medianMs: 1.5, p99Ms: 20.25, maxMs: 31 },
  },
  failure: { kind: "failure", code: "qemu-failed", message: "QEMU ended", refusedToken: TOKEN },
};

const image = { format: "qcow2", file: "/srv/web.qcow2", byteLength: 2 ** 36, writable: true, inode: "8:1:77" };

/** An offer with everything that a source may say of its guest. */
export const FULL_OFFER: Offer = {
  ...offer,
  guest: {
    ...offer.guest,
    devices: ["peripheral/net0 (virtio-net-pci)", "PCI 03.0 (1af4:1000)"],
    deviceSettings: ["disk0: num-queues = 1"],
    disks: {
      boot: "5f0c2b6e-0000-4000-8000-000000000000",
      drives: [
        {
          ...{ name: "disk0", removable: false, place: "disk0/virtio-blk-device" },
          layers: [{ ...image, baseName: "web.qcow2" }],
        },
      ],
      memory: [{ ...image, format: "mem0", file: "/dev/shm/web", baseName: "web" }],
    },
    mark: { name: ".ferry-m-1", content: "0123456789abcdef0123456789abcdef" },
    disksUnchecked: true,
  },
};

export const CONTRACT: Contract = {
  protocolVersion: 2,
  codecs: ["xbzrle", "zstd"],
  frameBytes: 262_144,
  creditWindowBytes: 2 ** 33,
  destinationQemuVersion: { major: 10, minor: 0, micro: 2 },
  destinationFreeMemoryBytes: 2 ** 37,
  followUpMs: 30_000,
  ramBlocks: offer.guest.ramBlocks,
  strategies: ["stop-and-copy", "precopy", "postcopy", "hybrid"],
  strategy: "hybrid",
  postcopy: true,
  onDeadline: "postcopy",
  postcopyObstacle: "Userfaultfd not available",
  comparesDisks: true,
  warnings: ["The disks are not shared."],
  measuresLink: true,
};

export const REFUSALS = [{ code: "machine-type", message: "QEMU does not know pc-q35-11.0" }];

const ASKS: Readonly<Record<SettleCall["ask"], true>> = { standing: true, grant: true, withdraw: true, kept: true };
export const SETTLE_CALLS: readonly SettleCall[] = Object.keys(ASKS).map((ask) => ({
  ...{ migrationId: "m-1", token: TOKEN, epoch: 1, paused: ask === "grant" },
  ask: ask as SettleCall["ask"],
}));

const STANDINGS: Readonly<Record<Standing, true>> = {
  ...{ waiting: true, starting: true, pulling: true, running: true, refused: true, lost: true, unknown: true },
};
export const SETTLE_ANSWERS = Object.keys(STANDINGS).map((standing) => ({
  ...{ standing: standing as Standing, reason: "because" },
  ...(standing === "running" ? { running: RUNNING } : {}),
}));

export const GUESTS: readonly GuestView[] = [
  {
    ...{ name: "web", state: "running", detail: "", qemuVersion: "10.0.2", machineType: "pc-q35-8.1" },
    ...{ migrationId: "m-1", definitionDigest: "00ff" },
  },
];

export const HEAT_MAP: readonly HeatMapBlock[] = [
  { name: "pc.ram", pagesPerCell: 512, cells: Buffer.from([0, 128, 255]) },
];

const interval = { low: 1, expected: 2, high: 3 };
export const PLAN: PlanView = {
  accepted: true,
  refusals: REFUSALS,
  negotiated: { codecs: "xbzrle, zstd" },
  notes: ["The disks are not shared."],
  link: { bytesPerSecond: 1.2e8, roundTripMs: 0.4 },
  observation: {
    ...{ memoryBytes: 2 ** 30, zeroBytes: 2 ** 29, workingSetBytes: 2 ** 26, seconds: 5, dirtyBytesPerSecond: 6e6 },
    ...{ dirtyCurve: [{ seconds: 0.5, bytes: 2 ** 20 }], zstdRatio: 2.5, deltaRatio: 9.25, hostSpeed: 0.75 },
    cost: {
      ...{ seconds: 6, agentCpuSeconds: 0.5, qemuCpuSeconds: 0.75 },
      ...{ processorsWaited: 0.125, processorsWaitedBefore: 0.25 },
    },
  },
  predictions: [
    { strategy: "precopy", offered: true, converges: "no" },
    {
      ...{ strategy: "hybrid", offered: true, converges: "yes" },
      ...{ totalSeconds: interval, downtimeMs: interval, bytes: interval },
    },
  ],
  recommended: "hybrid",
  reason: "the guest dirties more than the link carries",
};

const STATUSES: Readonly<Record<MigrationStatus, true>> = {
  ...{ preparing: true, copying: true, switching: true, granting: true, moved: true, failed: true, cancelled: true },
  ...{ inDoubt: true, doubled: true, undoing: true, serving: true },
};
const POSTCOPY = { seconds: 2.5, requestedPages: 70, serviceMedianMs: 1, serviceP99Ms: 9, serviceMaxMs: 30 };
/** A view in every status, each with a result and an error. */
export const VIEWS: readonly MigrationView[] = Object.keys(STATUSES).map((status) =>
  view({
    ...{ status: status as MigrationStatus, source: "host-a:7411", progress: progress() },
    result: result({ degradations: ["delta: too slow"], postcopy: { ...POSTCOPY, repeatedPages: 3 } }),
    error: { code: "refused", message: "No", guestNow: "it runs here", advice: "Wait", refusals: REFUSALS },
  }),
);

const QEMU = { pid: 4711, identity: "boot:4711:99" };
const GRANT = { token: "ab".repeat(16), epoch: 1, paused: true };
const STREAM: SourcePostcopy = {
  ...{ ramSectionId: 2, blocks: [{ name: "pc.ram", byteLength: 2 ** 30 }], complete: true },
  ...{ frameBytes: 262_144, creditWindowBytes: 2 ** 24, codecs: ["xbzrle", "zstd"] },
};

const SOURCE_KINDS: Readonly<Record<SourceRecord["kind"], true>> = {
  ...{ plan: true, granted: true, released: true, kept: true },
};
export const SOURCE_JOURNAL: readonly SourceRecord[] = Object.keys(SOURCE_KINDS).map((kind) => ({
  ...{ kind: kind as SourceRecord["kind"], guest: "web", destination: "host-b:7412", sequence: 5, startedAtMs: 1e12 },
  ...{ qemu: QEMU, grant: GRANT, retiring: true, withdrawn: true, postcopy: STREAM, endedAtMs: 2e12, untold: true },
  settings: { capabilities: { xbzrle: true }, parameters: { "max-bandwidth": 2 ** 30, "tls-creds": "" } },
  reason: { code: "cancelled", message: "Enough" },
}));

const DESTINATION_KINDS: Readonly<Record<DestinationRecord["kind"], true>> = {
  ...{ waiting: true, running: true, arrived: true, refused: true },
};
export const DESTINATION_JOURNAL: readonly DestinationRecord[] = Object.keys(DESTINATION_KINDS).map((kind) => ({
  ...{ kind: kind as DestinationRecord["kind"], guest: "web", source: "host-a:7411", caller: "a", sequence: 5 },
  ...{ startedAtMs: 1e12, qemu: QEMU, grant: GRANT, postcopy: { ...STREAM, sourceAddress: "host-a:7411" } },
  ...{ ungranted: true, ran: true, saysKept: true, reason: "Enough", heard: true },
}));
