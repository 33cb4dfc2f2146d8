/**
 * Before its first migration a destination agent receives a guest that there is not, so that what runs for each page and frame is
 * compiled by then; and keeps what it was done with, or V8 would forget what it learned (docs/decisions/0032).
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

export interface WarmUpOptions {
  readonly config: DestinationConfig;
  readonly clock: Clock;
  readonly limits: LinkLimits;
  readonly createKernels: (byteLength: number) => PageKernels;
}

/** The same code for several instances: what it learned of one alone would not hold for the next. */
const ROUNDS = 3;
const PAGES = 8192;
const PASSES = 12;
const PASS_PAGES = 2048;
const POSTCOPY_PAGES = 6144;
/** Each pass has half of the pages of the one before. */
const firstOf = (pass: number): number => ((pass * PASS_PAGES) / 2) % (PAGES - PASS_PAGES);
/** It takes 2 s on a quiet machine; a busy one is given its time, for an agent that gave up would never be ready. */
const ROUND_WITHIN_MS = 60_000;
const FRAME_BYTES = 64 << 10;
/** A request of QEMU's for each so many reads of its socket. */
const REQUEST_EVERY = 4;
/** Most of a guest's memory is often zero. */
const isZero = (page: number): boolean => page % 8 < 4;

let kept: unknown;

/** Ends early when `signal` is aborted, for there is a migration. @throws whatever a migration may throw */
export async function warmUp(parts: WarmUpOptions, signal: AbortSignal): Promise<void> {
  for (let round = 0; round < ROUNDS && !signal.aborted; round++) {
    const within = AbortSignal.any([signal, AbortSignal.timeout(ROUND_WITHIN_MS)]);
    kept = await receiveNobody(parts, within);
  }
  await returnMemory();
}

/** Is there something that is kept? For tests. */
export const isWarm = (): boolean => kept !== undefined;

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

const contractOf = (ramBlocks: readonly RamBlock[], { receiveWindowBytes }: DestinationConfig) =>
  ({
    frameBytes: FRAME_BYTES,
    creditWindowBytes: receiveWindowBytes,
    codecs: ["xbzrle", "zstd"],
    ramBlocks,
    postcopy: true,
  }) satisfies Partial<Contract>;

/** The destination's QEMU: takes everything, and asks for pages in post-copy. */
class MadeUpLoader {
  /** In post-copy. */
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

  /** @param path of a socket that it listens at; gone with close() */
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
