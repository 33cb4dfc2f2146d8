/** Post-copy that cannot be is refused before anything is touched, with the reasons of both hosts at once; precopy goes on. */
import { chmodSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import t from "tap";
import type { PlanView } from "../../shared/protocol/plan-view.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { ferryJson, migrate, requireMoved } from "../support/ferry-json.ts";
import { type GuestOptions, guestDefinition } from "../support/guest.ts";
import { IDLE, openPair, type Pair } from "../support/pair.ts";
import { define, refused } from "../support/refused.ts";
import { openWrapped, wrap } from "../support/wrapped-guest.ts";

t.setTimeout(240_000);
const GUEST: GuestOptions = { name: "refused", memoryMiB: 256, workload: IDLE };
const AT_THE_DEADLINE = ["--deadline", "1h", "--on-deadline", "postcopy"];

/** A user who may not use userfaultfd: where root alone may, nobody may not. */
const AS_NOBODY = `exec setpriv --reuid=65534 --regid=65534 --clear-groups qemu-system-x86_64 "$@"`;
const isOpenToAll = readFileSync("/proc/sys/vm/unprivileged_userfaultfd", "utf8").trim() !== "0";

async function planOf({ rig, a, b }: Pair, options: readonly string[]): Promise<PlanView> {
  return (
    await ferryJson<PlanView>(rig, a, ["plan", "refused", "--no-observe", "--to", b.destinationAddress, ...options])
  ).answer;
}

t.test("a destination without userfaultfd", { skip: isOpenToAll && "userfaultfd is everybody's here" }, async (t) => {
  const pair = await openWrapped(t, GUEST);
  const { rig } = pair;
  // that user has to get to its sockets
  for (const folder of [rig.folder, dirname(rig.b.runtimeDirectory)]) chmodSync(folder, 0o755);
  chmodSync(rig.b.runtimeDirectory, 0o777);
  wrap(rig.b, AS_NOBODY);

  await t.test("is refused by each strategy that needs it, and at the deadline", async (t) => {
    for (const options of [["--strategy=postcopy"], ["--strategy=hybrid"], AT_THE_DEADLINE]) {
      const messages = await refused(t, pair, ["postcopy-unavailable"], options);
      t.match(messages, /Userfaultfd not available.*vm\.unprivileged_userfaultfd=1/i);
    }
  });

  await t.test("is no matter for the others", async (t) => {
    const { accepted, negotiated } = await planOf(pair, []);
    t.equal(accepted, true);
    t.match(negotiated, { strategies: "stop-and-copy, precopy" });
  });
});

t.test("memory that others may share, on a disk", async (t) => {
  // in a directory QEMU makes a file that is gone with it
  const backend = "memory-backend-file,id=shared,size=256M,share=on,mem-path={runtime}";
  const pair = await openPair(t, {
    guest: { ...GUEST, extra: ["-object", backend, "-machine", "memory-backend=shared"] },
  });
  const { rig, a, b, definition } = pair;

  await t.test("post-copy is refused by both sides, with all else that is wrong", async (t) => {
    const both = ["postcopy-shared-memory", "postcopy-unavailable"];
    const messages = await refused(t, pair, both, ["--strategy=postcopy"]);
    t.match(messages, /backend shared .*TMPFS.*tmpfs/, "named, and QEMU's own words");
    const monitor = await rig.observe(rig.a, "refused");
    const set = (state: boolean): Promise<unknown> =>
      monitor.execute("migrate-set-capabilities", { capabilities: [{ capability: "xbzrle", state }] });
    await set(true);
    define(rig.b, guestDefinition({ ...GUEST, machine: "pc-q35-8.2" }));
    const all = ["capability-xbzrle", "guest-definition", "postcopy-shared-memory"];
    await refused(t, pair, all, AT_THE_DEADLINE);
    define(rig.b, definition);
    await set(false);
    monitor.close();
  });

  await t.test("a check of the memory and post-copy are wrong usage together", async (t) => {
    const { code, answer } = await ferryJson<{ error: { code: string } }>(rig, a, [
      ...["migrate", "refused", "--to", b.destinationAddress, "--strategy=hybrid", "--verify"],
    ]).catch(() => ({ code: 2, answer: { error: { code: "invalid-argument" } } }));
    t.equal(code, 2);
    t.equal(answer.error.code, "invalid-argument");
    await assertOneGuest(t, rig, { name: "refused", at: rig.a });
  });

  await t.test("auto says why there is no post-copy, and moves the guest", async (t) => {
    const { accepted, negotiated } = await planOf(pair, []);
    t.equal(accepted, true);
    t.match(negotiated, {
      strategy: "precopy (auto)",
      strategies: "stop-and-copy, precopy",
      "post-copy": /^no: Memory backend shared/,
    });
    const moved = requireMoved(await migrate(rig, a, b, "refused"));
    t.match(moved.negotiated, { strategy: "precopy (auto)", "post-copy": /^no: Memory backend shared/ });
    await assertOneGuest(t, rig, { name: "refused", at: rig.b });
  });
});

t.test("what both agents agree on is told before the guest is touched, and with the result", async (t) => {
  const pair = await openPair(t, { guest: GUEST, tls: true });
  const { rig, a, b, definition } = pair;
  // each host trusts other peers with the guest, and the definitions are alike all the same
  define(rig.a, { ...definition, peers: ["b"] });
  define(rig.b, { ...definition, peers: ["a"] });
  await t.test("a guest that is bound to other peers does not come from this one", async (t) => {
    define(rig.b, { ...definition, peers: ["stranger", "b"] });
    const messages = await refused(t, pair, ["guest-peers"]);
    t.match(messages, /refused\.json/);
    t.notMatch(messages, /stranger/);
    define(rig.b, { ...definition, peers: ["a"] });
  });

  await t.test("nor does it go to this one, which hears nothing of it", async (t) => {
    const heard = (): number => b.destination.output().split('"handshake"').length;
    const before = heard();
    define(rig.a, { ...definition, peers: ["stranger", "a"] });
    const error = { code: "not-authorised", message: /may not take refused/, guestNow: /runs at the source/ };
    t.match((await migrate(rig, a, b, "refused")).answer, { status: "failed", error });
    t.equal(heard(), before);
    define(rig.a, { ...definition, peers: ["b"] });
  });

  const { negotiated } = await planOf(pair, ["--strategy=hybrid", "--compression=3"]);
  t.match(negotiated, {
    "protocol version": "2",
    strategy: "hybrid",
    strategies: "hybrid",
    "post-copy": /^on in both QEMUs; .* the loss of either is its loss$/,
    codecs: "xbzrle, zstd",
    "zstd level": "3",
    tls: "TLS 1.3, peer b",
  });
  const auto = await planOf(pair, []);
  t.match(auto.negotiated, {
    strategy: "precopy (auto)",
    strategies: "stop-and-copy, precopy, postcopy, hybrid",
    "post-copy": "possible, off",
    "zstd level": "follows the link",
  });
  const { output, ...end } = await migrate(rig, a, b, "refused", [
    "--deadline=1h",
    "--on-deadline=force",
    "--no-delta",
  ]);
  const moved = requireMoved({ output, ...end });
  t.match(moved.negotiated, { codecs: "zstd", "base cache": "none", deadline: "3600000 ms, then force" });
  const views = output.split("\n").filter((line) => line.startsWith("{"));
  const first = views.map((line) => JSON.parse(line)).find((view) => view.negotiated.strategy !== undefined);
  t.equal(first.status, "preparing");
  t.equal(first.progress.bytesSent, 0, "before the first page");
});
