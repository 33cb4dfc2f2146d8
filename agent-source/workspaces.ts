/**
 * The memory that migrations work in and the threads that compress there, kept from one migration to the next: a host that is
 * emptied moves one guest after another. Memory that is touched for the first time is fetched and cleared by the kernel page by
 * page, some 70 000 of them in a migration, and a thread takes a while to start (docs/decisions/0039). The memory is kept for a
 * time only; what is in it is of the guest that was moved, and everything in it is written before it is read.
 */
import type { PageKernels } from "../shared/page/kernels.ts";
import { returnMemoryLater } from "../shared/runtime/return-memory.ts";
import { ZstdPool } from "../shared/runtime/zstd-pool.ts";

export interface Workspace {
  readonly kernels: PageKernels;
  /** Compresses in its memory; undefined where no threads were asked for. */
  readonly zstd: ZstdPool | undefined;
  /** To be called when nobody touches the memory any more but the threads. Further calls do nothing. */
  readonly giveBack: () => Promise<void>;
}

export interface WorkspacesParts {
  readonly createKernels: (byteLength: number) => PageKernels;
  /** How long memory is kept for the next migration, milliseconds; 0: not at all. */
  readonly keepMs: number;
  /** Address space of each, so that every one serves for all that may come; more where more is asked for. */
  readonly usualBytes: number;
}

export class Workspaces {
  private readonly parts: WorkspacesParts;
  private readonly kept = new Map<PageKernels, NodeJS.Timeout>();
  private threads: ZstdPool | undefined;
  /** Workspaces that were taken and not given back. */
  private out = 0;

  constructor(parts: WorkspacesParts) {
    this.parts = parts;
  }

  /** @throws MigrationFault `configuration` when the host has no room for it */
  take(byteLength: number, threads: number): Workspace {
    const kernels = this.keptFor(byteLength) ?? this.parts.createKernels(Math.max(byteLength, this.parts.usualBytes));
    return this.workspace(kernels, threads, () => this.keep(kernels));
  }

  /** One whose memory was nobody's before, and is not kept: for who refers to it for ever. @throws as take() */
  takeNew(byteLength: number, threads: number): Workspace {
    return this.workspace(this.parts.createKernels(byteLength), threads, () => undefined);
  }

  /** Nothing is kept any more. */
  async close(): Promise<void> {
    for (const [kernels, timer] of this.kept) {
      clearTimeout(timer);
      this.kept.delete(kernels);
    }
    const { threads } = this;
    this.threads = undefined;
    await threads?.close();
  }

  private workspace(kernels: PageKernels, threads: number, keep: () => void): Workspace {
    const zstd = threads === 0 ? undefined : this.threadsFor(kernels, threads);
    let given: Promise<void> | undefined;
    this.out++;
    const giveBack = async (): Promise<void> => {
      this.out--;
      // before the memory is anybody else's
      if (zstd !== undefined) await this.rest(zstd);
      keep();
    };
    return { kernels, zstd, giveBack: () => (given ??= giveBack()) };
  }

  private keptFor(byteLength: number): PageKernels | undefined {
    for (const [kernels, timer] of this.kept) {
      if (kernels.memory.byteLength < byteLength) continue;
      clearTimeout(timer);
      this.kept.delete(kernels);
      return kernels;
    }
    return undefined;
  }

  private keep(kernels: PageKernels): void {
    if (this.parts.keepMs === 0) return;
    const timer = setTimeout(() => {
      this.kept.delete(kernels);
      // nothing is collected while pages are moved: the next one would have memory of its own beside it
      if (this.out > 0) this.keep(kernels);
      else returnMemoryLater(() => this.out === 0);
    }, this.parts.keepMs);
    this.kept.set(kernels, timer.unref());
  }

  private threadsFor({ memory }: PageKernels, count: number): ZstdPool {
    const { threads } = this;
    if (threads === undefined || threads.workers !== count || !threads.isIdle) return new ZstdPool(memory, count);
    this.threads = undefined;
    threads.use(memory);
    return threads;
  }

  /** Resolves when no thread touches the memory any more. Those of one migration stay, and wait for the next. */
  private async rest(zstd: ZstdPool): Promise<void> {
    if (this.threads !== undefined || !zstd.isIdle) {
      await zstd.close();
      return;
    }
    zstd.use(undefined);
    this.threads = zstd;
  }
}
