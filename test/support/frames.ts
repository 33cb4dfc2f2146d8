/** Frames as a source sends them, good ones and ones that say what is not so, with the contract that they are read by. */
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
export const kernels = loadKernels(KERNEL_RESERVED_BYTES + frameBufferBytes(FRAME_BYTES) + 3 * PAGE_SIZE);
export const AT = KERNEL_RESERVED_BYTES + PAGE_SIZE;

export function pages(write: (writer: PageFrameWriter) => void): Buffer {
  const writer = new PageFrameWriter(kernels);
  writer.begin(address(AT), FRAME_BYTES);
  write(writer);
  return Buffer.from(kernels.memory.slice(AT, AT + writer.finish()));
}

export function delta(writer: PageFrameWriter, page: number, xbzrle: readonly number[]): void {
  kernels.memory.set(xbzrle, writer.deltaPlace);
  writer.delta(page, xbzrle.length);
}

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

/** A frame with the checksum of its body, unless told otherwise. */
export function frame(sequence: number, body: Uint8Array, changes: Partial<Frame> = {}): Frame {
  kernels.memory.set(body.subarray(0, FRAME_BYTES), AT);
  kernels.checksum(address(AT), Math.min(body.length, FRAME_BYTES), address(KERNEL_RESERVED_BYTES));
  const checksum = kernels.memory.slice(KERNEL_RESERVED_BYTES, KERNEL_RESERVED_BYTES + 8);
  const given = { sequence, frameKind: "pages", codec: "none", rawLength: body.length, checksum, body } as const;
  return { kind: "frame", ...given, ...changes };
}

export const squeezed = (sequence: number, body: Uint8Array, changes: Partial<Frame> = {}): Frame => ({
  ...frame(sequence, body),
  codec: "zstd",
  body: compress(body),
  ...changes,
});

/** Of a migration that nobody gave an option. */
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
} as const;
