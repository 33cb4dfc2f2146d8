/** Tests how `--verify` treats digests that are no answer, and pages that differ. */
import { createHash } from "node:crypto";
import { statSync, writeFileSync } from "node:fs";
import t from "tap";
import type { SourceContext } from "../../../agent-source/migration/source-context.ts";
import { verifyMemory } from "../../../agent-source/migration/verify-memory.ts";
import type { Compared } from "../../../agent-source/report/migration-result.ts";
import type { TransferSession } from "../../../agent-source/transfer/transfer-session.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { DIGEST_BYTES } from "../../../shared/runtime/guest/memory-digests.ts";
import { PAGE_SIZE } from "../../../shared/units.ts";

const RAM_BLOCKS = "  pc.ram    4 KiB  0x0000000000000000 0x0000000000002000 0x0000000000002000 0x0 rw";
const TREE = ["FlatView #0", ' AS "memory", root: system', "  0000000000000000-0000000000001fff (prio 0, ram): pc.ram"];
const GUID = "00112233-4455-6677-8899-aabbccddeeff";
/** The id as it is in the guest's memory: the first three parts of a GUID are little-endian there. */
const ID = Buffer.from("33221100554477668899aabbccddeeff", "hex");

interface Saved {
  readonly val: number;
  readonly filename?: string;
  readonly size: number;
  readonly "command-line": string;
}

/** A guest with two pages. The second page may be the one that has the generation id. */
interface Guest {
  readonly second?: Buffer;
  /** True when the guest has the device vmgenid. */
  readonly hasId?: boolean;
}

/** Makes a page of zeros, except for these bytes. */
function pageWith(bytes: Uint8Array, at: number): Buffer {
  const page = Buffer.alloc(PAGE_SIZE);
  page.set(bytes, at);
  return page;
}

const digestsOf = (...pages: readonly Uint8Array[]): Buffer =>
  Buffer.concat(pages.map((page) => createHash("sha256").update(page).digest().subarray(0, DIGEST_BYTES)));

const ZERO = Buffer.alloc(PAGE_SIZE);

/** The modes of the files into which QEMU has written the guest's memory. */
const modes: number[] = [];

/** Answers as QEMU answers about its memory, and to pmemsave. */
function saved(args: Saved, second: Buffer): unknown {
  if (args.filename === undefined) return args["command-line"] === "info ramblock" ? RAM_BLOCKS : TREE.join("\r\n");
  // like QEMU, this makes a file that is missing, for everybody whom the umask lets read it
  writeFileSync(args.filename, Buffer.concat([ZERO, second]).subarray(args.val, args.val + args.size));
  modes.push(statSync(args.filename).mode & 0o777);
  return {};
}

function verify(t: { testdir(): string }, digests: Uint8Array, guest: Guest = {}): Promise<Compared> {
  const { second = ZERO, hasId = false } = guest;
  const execute = async (command: string, args: Saved): Promise<unknown> => {
    if (command !== "query-vm-generation-id") return saved(args, second);
    if (hasId) return { guid: GUID };
    throw new MigrationFault("qmp-command", "VM Generation ID device not found");
  };
  return verifyMemory(
    { qmp: { execute }, inbox: { askDigests: async () => ({ digests }) } } as unknown as TransferSession,
    { id: "m", call: { guest: "web" }, config: { runtimeDirectory: t.testdir() } } as unknown as SourceContext,
  );
}

t.test("digests of another length than was asked for are the destination's fault", async (t) => {
  for (const length of [0, 1, DIGEST_BYTES, 2 * DIGEST_BYTES - 1, 3 * DIGEST_BYTES])
    await t.rejects(verify(t, Buffer.alloc(length)), { code: "peer-invalid", message: /bytes of digests for 32/ });
  await t.rejects(verify(t, Buffer.alloc(2 * DIGEST_BYTES)), { code: "verify-mismatch", message: /2 of 2 pages/ });
  t.same(await verify(t, digestsOf(ZERO, ZERO)), { pages: 2, exceptions: [] });
});

t.test("the page of the generation id may differ, and the result names it", async (t) => {
  const second = pageWith(ID, 40);
  const { pages, exceptions } = await verify(t, digestsOf(ZERO, ZERO), { second, hasId: true });
  t.equal(pages, 1);
  t.match(exceptions, [/^vmgenid: .*in the page at 0x1000$/]);
});

t.test("any other difference than the generation id is a mismatch", async (t) => {
  const message = /^1 of 2 pages differ .* the first ones at the guest-physical addresses 0x1000$/;
  const mismatch = { code: "verify-mismatch", message };
  const alike = digestsOf(ZERO, ZERO);
  for (const [second, why] of [
    [pageWith(ID, 48), "the id elsewhere in its page"],
    [pageWith(Buffer.concat([ID, Buffer.of(1)]), 40), "something beside the id"],
    [pageWith(ID.subarray(1), 40), "another id"],
  ] as const)
    await t.rejects(verify(t, alike, { second, hasId: true }), mismatch, why);
  await t.rejects(verify(t, alike, { second: pageWith(ID, 40) }), mismatch, "a guest without the device");
  const both = verify(t, digestsOf(pageWith(ID, 0), ZERO), { second: pageWith(ID, 40), hasId: true });
  await t.rejects(both, { code: "verify-mismatch", message: /^1 of 2 pages differ .* 0x0$/ }, "another page as well");
});

t.test("a destination that sends no digests is given up, so that the guest does not stand still", async (t) => {
  const qmp = { execute: async (_: string, args: Saved): Promise<unknown> => saved(args, ZERO) };
  const inbox = { askDigests: () => new Promise<never>(() => undefined) };
  const cx = { id: "m", call: { guest: "web" }, config: { runtimeDirectory: t.testdir() } } as unknown as SourceContext;
  await t.rejects(verifyMemory({ qmp, inbox } as unknown as TransferSession, cx, 10), {
    code: "timeout",
    message: /did not send digests of its memory within 10 ms/,
  });
});

t.test("no other user may read the memory that QEMU saves for a comparison", async (t) => {
  const before = process.umask(0);
  t.teardown(() => process.umask(before));
  modes.length = 0;
  await verify(t, digestsOf(ZERO, ZERO));
  t.ok(modes.length > 0);
  t.same(
    modes.filter((mode) => mode !== 0o600),
    [],
  );
});
