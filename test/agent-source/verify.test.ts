/** Digests that are no answer to what was asked. */
import { writeFileSync } from "node:fs";
import t from "tap";
import type { Feed } from "../../agent-source/feed.ts";
import type { SourceContext } from "../../agent-source/source-context.ts";
import { verifyMemory } from "../../agent-source/verify.ts";
import { DIGEST_BYTES } from "../../shared/runtime/memory-digests.ts";

const RAM_BLOCKS = "  pc.ram    4 KiB  0x0000000000000000 0x0000000000002000 0x0000000000002000 0x0 rw";
const TREE = ["FlatView #0", ' AS "memory", root: system', "  0000000000000000-0000000000001fff (prio 0, ram): pc.ram"];

interface Saved {
  readonly filename: string;
  readonly size: number;
  readonly "command-line": string;
}

/** A monitor of a guest with two pages of zeros. */
const execute = async (command: string, args: Saved): Promise<unknown> => {
  if (command === "pmemsave") return writeFileSync(args.filename, Buffer.alloc(args.size));
  return args["command-line"] === "info ramblock" ? RAM_BLOCKS : TREE.join("\r\n");
};

const verify = (t: { testdir(): string }, digests: Uint8Array): Promise<number> =>
  verifyMemory(
    { qmp: { execute }, inbox: { askDigests: async () => ({ digests }) } } as unknown as Feed,
    { id: "m", config: { runtimeDirectory: t.testdir() } } as unknown as SourceContext,
  );

t.test("digests of another length than was asked for are the destination's fault", async (t) => {
  for (const length of [0, 1, DIGEST_BYTES, 2 * DIGEST_BYTES - 1, 3 * DIGEST_BYTES])
    await t.rejects(verify(t, Buffer.alloc(length)), { code: "peer-invalid", message: /bytes of digests for 32/ });
  await t.rejects(verify(t, Buffer.alloc(2 * DIGEST_BYTES)), { code: "verify-mismatch", message: /2 of 2 pages/ });
});
