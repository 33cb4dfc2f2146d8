/**
 * Measures bodies of frames: the writer and the reader of shared/codec/page-frame.ts beside a plain copy of the same
 * pages, and zstd over frames of 256 KiB, called directly and through the pool of threads. The rates of zstd count the
 * bytes before compression.
 */
import zstd from "zstd-napi/binding.js";
import { frameBufferBytes, PageFrameReader, PageFrameWriter, type RecordSink } from "../../shared/codec/page-frame.ts";
import { decompressInto } from "../../shared/codec/zstd.ts";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { ZstdPool } from "../../shared/runtime/zstd/zstd-pool.ts";
import { type Address, address, PAGE_SIZE } from "../../shared/units.ts";
import { FRAME_BYTES, numbers } from "./guest-pages.ts";
import { against, contest, type Group, type Measurement, type Round, summary, timed, timedAsync } from "./measure.ts";

const GROUP = "frame";
const PAGES = 8192;
const PAGES_AT = KERNEL_RESERVED_BYTES;
const DELTA_BYTES = 27;
const FRAMES_AT = PAGES_AT + PAGES * PAGE_SIZE;
const FRAME_ROOM = Math.ceil(frameBufferBytes(FRAME_BYTES) / PAGE_SIZE) * PAGE_SIZE;
const FRAMES = Math.ceil(PAGES / 63);
const COPY_AT = FRAMES_AT + FRAMES * FRAME_ROOM;
const COPY_PAGES = 2048;
const MEMORY_BYTES = COPY_AT + COPY_PAGES * PAGE_SIZE;
const ROUNDS = { settle: 6, rounds: 15 };
const LEVELS = [-20, -5, 1, 3] as const;
const WORKERS = 2;
const ZSTD_FRAMES = 64;

/**
 * Makes half of each page like text, a quarter zero and a quarter random. zstd halves such pages, as it does with the
 * memory of processes.
 */
function fillPages(memory: Uint8Array): void {
  const next = numbers(0x5eed);
  const words = new Uint32Array(memory.buffer, PAGES_AT, (PAGES * PAGE_SIZE) / 4);
  for (let i = 0; i < words.length; i++) {
    const place = i % 1024;
    if (place < 512) words[i] = 0x7f00 + (next() & 0xff0);
    else if (place >= 768) words[i] = next();
  }
}

type Records = "full" | "delta";

class FrameRig {
  readonly kernels = loadKernels(MEMORY_BYTES);
  private readonly writer = new PageFrameWriter(this.kernels);
  private readonly reader = new PageFrameReader(this.kernels, PAGES, true);
  private readonly frames: { at: Address; length: number }[] = [];
  private readonly sink: RecordSink & { sum: number };

  constructor() {
    const { kernels } = this;
    fillPages(kernels.memory);
    const copyOut = (at: number, length: number): void =>
      kernels.copy(address(COPY_AT + (at & 0x1f000)), address(at), length);
    this.sink = {
      sum: 0,
      hasRoom: true,
      zeroPage: () => {},
      page: (_, at) => copyOut(at, PAGE_SIZE),
      delta: (_, at, length) => copyOut(at, length),
    };
  }

  encode(records: Records): void {
    const { writer } = this;
    let page = 0;
    for (let frame = 0; page < PAGES; frame++) {
      writer.begin(address(FRAMES_AT + (frame % FRAMES) * FRAME_ROOM), FRAME_BYTES);
      while (writer.hasRoom && page < PAGES) {
        if (records === "full") writer.full(page, address(PAGES_AT + page * PAGE_SIZE));
        else this.delta(page);
        page++;
      }
      const length = writer.finish();
      this.frames[frame] = { at: writer.frameAt, length };
      this.frames.length = frame + 1;
    }
  }

  decode(): void {
    for (const { at, length } of this.frames) {
      this.reader.open(at, length);
      if (!this.reader.drain(this.sink)) throw new RangeError("a frame was not read to its end");
    }
  }

  copyPages(): void {
    for (let page = 0; page < PAGES; page++)
      this.kernels.copy(
        address(COPY_AT + (page % COPY_PAGES) * PAGE_SIZE),
        address(PAGES_AT + page * PAGE_SIZE),
        PAGE_SIZE,
      );
  }

  /** Writes a delta that changes 24 bytes at the start of the page, the same for every page. */
  private delta(page: number): void {
    const at = this.writer.deltaPlace;
    this.kernels.memory[at] = 0;
    this.kernels.memory[at + 1] = 24;
    this.kernels.copy(address(at + 2), address(PAGES_AT + page * PAGE_SIZE), 24);
    this.writer.delta(page, DELTA_BYTES - 1);
  }
}

function measureFrames(rig: FrameRig, records: Records, decode: boolean): Omit<Measurement, "group" | "name"> {
  const bytes = PAGES * PAGE_SIZE;
  rig.encode(records);
  const work = decode ? () => rig.decode() : () => rig.encode(records);
  const [ours, theirs] = contest({ bytes, ...ROUNDS }, work, () => rig.copyPages());
  return against(ours, "copy", theirs);
}

const bodyAt = (frame: number): number => PAGES_AT + frame * FRAME_BYTES;
const ZSTD_BYTES = ZSTD_FRAMES * FRAME_BYTES;

interface Direct {
  readonly rounds: Round[];
  readonly decoding: Round[];
  readonly ratio: number;
}

function compressDirect(kernels: PageKernels, level: number): Direct {
  const context = new zstd.CCtx();
  const out = Buffer.alloc(FRAME_BYTES * 2);
  const back = Buffer.alloc(FRAME_BYTES);
  const encoded: Buffer[] = [];
  const rounds: Round[] = [];
  const decoding: Round[] = [];
  for (let i = 0; i < 4; i++) {
    const round = timed(ZSTD_BYTES, () => {
      for (let frame = 0; frame < ZSTD_FRAMES; frame++) {
        const body = kernels.memory.subarray(bodyAt(frame), bodyAt(frame + 1));
        const length = context.compress(out, body, level);
        if (i === 0) encoded.push(Buffer.from(out.subarray(0, length)));
      }
    });
    const decoded = timed(ZSTD_BYTES, () => {
      for (const one of encoded) decompressInto(back, one);
    });
    if (i === 0) continue;
    rounds.push(round);
    decoding.push(decoded);
  }
  return { rounds, decoding, ratio: ZSTD_BYTES / encoded.reduce((sum, { length }) => sum + length, 0) };
}

async function compressPooled(kernels: PageKernels, level: number): Promise<Round[]> {
  const pool = new ZstdPool(kernels.memory, WORKERS);
  const slots = Array.from({ length: 2 * WORKERS }, (_, index) => FRAMES_AT + index * FRAME_ROOM);
  const rounds: Round[] = [];
  try {
    for (let i = 0; i < 4; i++) {
      let frame = 0;
      // as many frames at once as the sender has frame buffers
      const session = async (to: number): Promise<void> => {
        while (frame < ZSTD_FRAMES) await pool.compress(bodyAt(frame++), FRAME_BYTES, to, FRAME_BYTES, level);
      };
      const round = await timedAsync(ZSTD_BYTES, async () => {
        await Promise.all(slots.map(session));
      });
      if (i > 0) rounds.push(round);
    }
  } finally {
    await pool.close();
  }
  return rounds;
}

export const frameGroup: Group = {
  name: GROUP,
  async run(report, wanted) {
    const rig = new FrameRig();
    for (const records of ["full", "delta"] as const)
      for (const decode of [false, true]) {
        const name = `${decode ? "read" : "write"}, ${records} pages`;
        if (wanted(name)) report({ group: GROUP, name, ...measureFrames(rig, records, decode) });
      }
    for (const level of LEVELS) {
      const names = [`zstd ${level}, direct`, `zstd ${level}, decode`, `zstd ${level}, ${WORKERS} threads`] as const;
      if (!names.some(wanted)) continue;
      const { rounds, decoding, ratio } = compressDirect(rig.kernels, level);
      const note = `ratio ${ratio.toFixed(2)}`;
      if (wanted(names[0])) report({ group: GROUP, name: names[0], ...summary(rounds), note });
      if (wanted(names[1])) report({ group: GROUP, name: names[1], ...summary(decoding) });
      if (!wanted(names[2])) continue;
      const pooled = await compressPooled(rig.kernels, level);
      report({ group: GROUP, name: names[2], ...against(pooled, "direct", rounds) });
    }
  },
};
