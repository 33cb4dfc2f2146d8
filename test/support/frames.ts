/** Makes frames as a source sends them, and frames that are wrong, with the contract by which they are read. */
import { compress } from "zstd-napi";
import { frameBufferBytes, PageFrameWriter } from "../../shared/codec/page-frame.ts";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import type { Contract } from "../../shared/protocol/messages.ts";
import type { Frame } from "../../shared/protocol/stream-messages.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { address, PAGE_SIZE } from "../../shared/units.ts";

export const PAGES = 64;
export const FRAME_BYTES = 65_536;
export const BLOCKS = [
  { name: "pc.ram", byteLength: 60 * PAGE_SIZE, pageSize: PAGE_SIZE },
  { name: "pc.bios", byteLength: 4 * PAGE_SIZE, pageSize: PAGE_SIZE },
];
export const contract: Contract = {
  protocolVersion: 1,
  codecs: ["xbzrle", "zstd"],
  frameBytes: FRAME_BYTES,
  creditWindowBytes: 1 << 20,
  destinationQemuVersion: { major: 10, minor: 0, micro: 2 },
  destinationFreeMemoryBytes: 2 ** 30,
  followUpMs: 1000,
  strategy: "precopy" as const,
  postcopy: false,
  strategies: ["precopy"],
  onDeadline: "cancel",
  postcopyObstacle: "",
  comparesDisks: true,
  warnings: [],
  measuresLink: false,
  ramBlocks: BLOCKS,
};
export const SECTION = 2;
/** Kernels whose memory has room for one frame. */
export const kernels = loadKernels(KERNEL_RESERVED_BYTES + frameBufferBytes(FRAME_BYTES) + 3 * PAGE_SIZE);
/** Where in the memory of `kernels` a frame's body is written. */
export const AT = KERNEL_RESERVED_BYTES + PAGE_SIZE;

/** Makes the body of a frame of pages. @param write writes its records */
export function pages(write: (writer: PageFrameWriter) => void): Buffer {
  const writer = new PageFrameWriter(kernels);
  writer.begin(address(AT), FRAME_BYTES);
  write(writer);
  const length = writer.finish();
  return Buffer.from(kernels.memory.slice(writer.frameAt, writer.frameAt + length));
}

/** Writes a delta with these bytes, whether they are XBZRLE or not. */
export function delta(writer: PageFrameWriter, page: number, xbzrle: readonly number[]): void {
  kernels.memory.set(xbzrle, writer.deltaPlace);
  writer.delta(page, xbzrle.length);
}

/** Bodies that a destination accepts. */
export const GOOD = [
  pages((w) => w.zeroRun(0, PAGES)),
  pages((w) => {
    delta(w, 3, [0, 2, 1, 2, 5, 1, 9]);
    w.full(60, address(KERNEL_RESERVED_BYTES));
    w.zeroRun(1, 2);
    delta(w, 63, [200, 1, 1, 7]);
  }),
  pages((w) => {
    for (let page = 63; page >= 0; page -= 9) delta(w, page, [4, 1, page]);
  }),
];

/** Makes a frame of pages with the checksum of its body. @param changes what is to be different */
export function frame(sequence: number, body: Uint8Array, changes: Partial<Frame> = {}): Frame {
  kernels.memory.set(body.subarray(0, FRAME_BYTES), AT);
  kernels.checksum(address(AT), Math.min(body.length, FRAME_BYTES), address(KERNEL_RESERVED_BYTES));
  const checksum = kernels.memory.slice(KERNEL_RESERVED_BYTES, KERNEL_RESERVED_BYTES + 8);
  const given = { sequence, frameKind: "pages", codec: "none", rawLength: body.length, checksum, body } as const;
  return { kind: "frame", ...given, ...changes };
}

/** Makes a compressed frame of pages. @param changes what is to be different */
export const squeezed = (sequence: number, body: Uint8Array, changes: Partial<Frame> = {}): Frame => ({
  ...frame(sequence, body),
  codec: "zstd",
  body: compress(body),
  ...changes,
});

/** The options of a migration for which the operator has given none. */
export const MIGRATE_OPTIONS = {
  strategy: "auto",
  downtimeTargetMs: 300,
  deadlineMs: 0,
  onDeadline: "cancel",
  bandwidthBytesPerSecond: 0,
  delta: true,
  reorder: true,
  compression: "auto",
  verify: false,
  sharedDisksUnchecked: false,
  robust: false,
} as const;
