/** What a migration works in is kept for the next one, and never anybody else's meanwhile. */
import t from "tap";
import { type Workspace, Workspaces, type WorkspacesParts } from "../../agent-source/workspaces.ts";
import { decompressInto } from "../../shared/codec/zstd.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { eventually } from "../support/bounded.ts";
import type { Test } from "../support/link-fixtures.ts";

const MIB = 1 << 20;

function workspaces(t: Test, parts: Partial<WorkspacesParts> = {}): Workspaces {
  const made = new OfTest({ createKernels: loadKernels, keepMs: 60_000, usualBytes: MIB, ...parts });
  t.teardown(() => made.close());
  return made;
}

/** Closed, nothing of it is left. */
class OfTest extends Workspaces {
  private readonly taken: Workspace[] = [];

  override take(byteLength: number, threads: number): Workspace {
    const workspace = super.take(byteLength, threads);
    this.taken.push(workspace);
    return workspace;
  }

  override async close(): Promise<void> {
    for (const { giveBack } of this.taken) await giveBack();
    await super.close();
  }
}

t.test("the next migration has the memory and the threads of the one before", async (t) => {
  const all = workspaces(t);
  const first = all.take(MIB / 2, 1);
  t.equal(first.kernels.memory.byteLength, MIB, "as much as any may need");
  await first.giveBack();
  const next = all.take(MIB, 1);
  t.equal(next.kernels, first.kernels);
  t.equal(next.zstd, first.zstd);
});

t.test("two at the same time have each their own", async (t) => {
  const all = workspaces(t);
  const [one, two] = [all.take(MIB, 1), all.take(MIB, 1)];
  t.not(one.kernels, two.kernels);
  t.not(one.zstd, two.zstd);
  await Promise.all([one.giveBack(), two.giveBack()]);
  const [three, four] = [all.take(MIB, 1), all.take(MIB, 1)];
  t.same(new Set([three.kernels, four.kernels]), new Set([one.kernels, two.kernels]));
  t.not(three.zstd, four.zstd, "threads of one are kept, and the others made anew");
});

t.test("given back twice it is there once", async (t) => {
  const all = workspaces(t);
  const first = all.take(MIB, 1);
  await Promise.all([first.giveBack(), first.giveBack()]);
  const next = all.take(MIB, 1);
  await first.giveBack();
  t.not(all.take(MIB, 1).kernels, next.kernels);
});

t.test("threads compress in the memory that they were handed, one after the other", async (t) => {
  const all = workspaces(t);
  for (const value of [1, 2]) {
    // the second one has a memory of its own, and the threads of the first
    const { kernels, zstd, giveBack } = value === 1 ? all.take(MIB, 1) : all.takeNew(MIB, 1);
    kernels.memory.fill(value, 65536, 131072);
    const length = (await zstd?.compress(65536, 65536, 131072, 65536, 1)) ?? 0;
    const back = new Uint8Array(65536);
    decompressInto(back, kernels.memory.slice(131072, 131072 + length));
    t.ok(back.every((byte) => byte === value));
    await giveBack();
  }
});

t.test("threads that are at work when it is given back are ended first", async (t) => {
  const all = workspaces(t, { usualBytes: 8 * MIB });
  const first = all.take(MIB, 1);
  if (first.zstd === undefined) throw new TypeError("no threads");
  const cancelled = t.rejects(first.zstd.compress(65536, 2 * MIB, 4 * MIB, 2 * MIB, 19), { code: "cancelled" });
  await first.giveBack();
  await cancelled;
  const next = all.take(MIB, 1);
  t.equal(next.kernels, first.kernels);
  t.not(next.zstd, first.zstd);
  t.ok((await next.zstd?.compress(65536, 65536, 4 * MIB, 65536, 1)) !== undefined);
});

t.test("memory that is too short, or was kept for long enough, is not used again", async (t) => {
  const all = workspaces(t);
  const first = all.take(MIB, 0);
  t.equal(first.zstd, undefined);
  await first.giveBack();
  t.not(all.take(2 * MIB, 0).kernels, first.kernels);
  t.equal(all.take(MIB, 0).kernels, first.kernels);

  for (const keepMs of [0, 1]) {
    const short = workspaces(t, { keepMs });
    const one = short.take(MIB, 0);
    await one.giveBack();
    const other = await eventually(
      () => {
        const found = short.take(MIB, 0);
        if (found.kernels !== one.kernels) return found;
        void found.giveBack();
        return undefined;
      },
      { timeoutMs: 5000, what: "memory of its own" },
    );
    t.ok(other, `kept for ${keepMs} ms`);
  }
});

t.test("while another migration is under way nothing is dropped", async (t) => {
  const all = workspaces(t, { keepMs: 1 });
  const [first, other] = [all.take(MIB, 0), all.take(MIB, 0)];
  await first.giveBack();
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.equal(all.take(MIB, 0).kernels, first.kernels);
  await other.giveBack();
});

t.test("what is not to be kept is nobody's afterwards", async (t) => {
  const all = workspaces(t);
  const once = all.takeNew(MIB, 1);
  await once.giveBack();
  const next = all.take(MIB, 1);
  t.not(next.kernels, once.kernels);
  t.equal(next.zstd, once.zstd, "its threads are");
});
