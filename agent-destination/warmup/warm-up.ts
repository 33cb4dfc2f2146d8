/**
 * Before its first migration a destination agent receives a guest that does not exist, so that the code which runs for
 * each page and each frame is compiled by then. The objects that have received it are kept: when the last object of a
 * shape is gone, V8 forgets what it has learned about that shape (docs/design/warm-up.md#why-objects-are-kept).
 */
import { randomBytes } from "node:crypto";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import type { LinkLimits } from "../../shared/link/link.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { Contract, RamBlock } from "../../shared/protocol/messages.ts";
import { PageRequests } from "../../shared/qemu/return-path/return-path.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { DestinationConfig } from "../../shared/runtime/config/config.ts";
import { orAborted } from "../../shared/runtime/deferred.ts";
import { returnMemory } from "../../shared/runtime/v8/return-memory.ts";
import { openLoopback } from "../../shared/warmup/loopback.ts";
import { askSimulatedMonitor } from "../../shared/warmup/simulated-monitor.ts";
import { Receiver } from "../replay/receiver.ts";
import { Replay } from "../replay/replay.ts";
import { SimulatedSource } from "./simulated-source.ts";

/** What a warm-up shares with real migrations. */
export interface WarmUpOptions {
  readonly config: DestinationConfig;
  readonly clock: Clock;
  readonly limits: LinkLimits;
  readonly createKernels: (byteLength: number) => PageKernels;
}

/**
 * How many times the guest is received, each time by other objects. V8 throws code away that it has compiled for the
 * single instance of a class when a second instance appears.
 */
const ROUNDS = 3;
/** The size of the simulated guest, pages. */
const PAGES = 8192;
/** How many passes follow the first pass. */
const PASSES = 12;
/** How many pages each of these passes has. */
const PASS_PAGES = 2048;
/** How many pages post-copy discards and sends. */
const POSTCOPY_PAGES = 6144;
/** Gives the first page of a pass, so that half of the pages of each pass are in the pass before. */
const firstOf = (pass: number): number => ((pass * PASS_PAGES) / 2) % (PAGES - PASS_PAGES);
/**
 * The longest that a round may take, milliseconds. The warm-up takes 2 s on a quiet machine. A busy machine is given
 * its time, since an agent that gave up would never be ready for its first migration.
 */
const ROUND_WITHIN_MS = 60_000;
const FRAME_BYTES = 64 << 10;
/** The simulated QEMU asks for a page once in so many reads of its socket. */
const REQUEST_EVERY = 4;
/** Tells which pages are zero: half of them, since most of a guest's memory is often zero. */
const isZero = (page: number): boolean => page % 8 < 4;

/** The objects that have received the guest in the last round. */
let kept: unknown;

/**
 * Receives the guest ROUNDS times.
 * @param signal is aborted when there is a migration; the warm-up then ends early
 * @throws whatever a migration may throw
 */
export async function warmUp(parts: WarmUpOptions, signal: AbortSignal): Promise<void> {
  for (let round = 0; round < ROUNDS && !signal.aborted; round++) {
    const within = AbortSignal.any([signal, AbortSignal.timeout(ROUND_WITHIN_MS)]);
    kept = await receiveNobody(parts, within);
  }
  await returnMemory();
}

/** True once a round has ended, so that its objects are kept. For tests. */
export const isWarm = (): boolean => kept !== undefined;

/**
 * Receives the guest once.
 * @returns the objects that have received the guest
 */
async function receiveNobody({ config, clock, limits, createKernels }: WarmUpOptions, signal: AbortSignal) {
  const path = join(config.runtimeDirectory, randomBytes(6).toString("hex"));
  await askSimulatedMonitor(`${path}.rehearsal-destination-monitor`, signal);
  const loop = await openLoopback(`${path}.rehearsal-destination`, limits, signal);
  const source = new SimulatedSource(loop.source, createKernels, { pageCount: PAGES, frameBytes: FRAME_BYTES });
  const contract = contractOf(source.blocks, config);
  const qemu = new MadeUpLoader(source.blocks);
  const socket = await qemu.connected(`${path}.incoming`);
  loop.source.retain(contract.creditWindowBytes);
  const receiver = new Receiver({
    channel: loop.destination,
    socket,
    clock,
    cancelled: signal,
    record: { frameBytes: FRAME_BYTES, creditWindowBytes: 0, codecs: contract.codecs, sourceAddress: "" },
    makeReplay: (onFault) =>
      new Replay({ createKernels, contract, channel: loop.destination, socket, clock, onFault, corruptPage: false }),
  });
  const either = AbortSignal.any([signal, receiver.signal]);
  const play = async (): Promise<void> => {
    await source.start();
    await source.firstPass(isZero);
    for (let pass = 0; pass < PASSES; pass++) await source.pass(firstOf(pass), PASS_PAGES);
    qemu.asks = true;
    await source.postcopy(0, POSTCOPY_PAGES);
  };
  try {
    await orAborted(play(), either);
    await orAborted(receiver.ended.promise, either);
    await orAborted(receiver.replay.drained(), either);
  } finally {
    receiver.close();
    await source.close();
    await loop.close();
    qemu.close();
  }
  return { loop, receiver };
}

/** Makes the contract of the simulated migration. */
const contractOf = (ramBlocks: readonly RamBlock[], { receiveWindowBytes }: DestinationConfig) =>
  ({
    frameBytes: FRAME_BYTES,
    creditWindowBytes: receiveWindowBytes,
    codecs: ["xbzrle", "zstd"],
    ramBlocks,
    postcopy: true,
  }) satisfies Partial<Contract>;

/** The simulated QEMU of the destination: it takes everything, and asks for pages in post-copy. */
class MadeUpLoader {
  /** True in post-copy, when pages may be asked for. */
  asks = false;
  private readonly requests: PageRequests;
  private readonly server: Server;
  private reads = 0;

  constructor(blocks: readonly RamBlock[]) {
    this.requests = new PageRequests(blocks);
    this.server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.on("data", () => this.read(socket));
    });
  }

  /**
   * Makes a connection to this simulated QEMU, which listens at `path`.
   * @param path the path of a new socket, which close() removes
   * @returns the agent's end of the connection, to which the stream for QEMU is written
   */
  connected(path: string): Promise<Socket> {
    return new Promise((resolve, reject) => {
      this.server.once("error", reject);
      this.server.listen(path, () => {
        const socket = connect(path, () => resolve(socket));
        socket.once("error", reject);
      });
    });
  }

  close(): void {
    this.server.close();
  }

  private read(socket: Socket): void {
    if (!this.asks || this.reads++ % REQUEST_EVERY !== 0) return;
    this.requests.add(Math.imul(this.reads, 7919) % POSTCOPY_PAGES, 1);
    socket.write(this.requests.take());
  }
}
