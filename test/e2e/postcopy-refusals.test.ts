/**
 * Asks for post-copy that is not possible: it is refused before anything is touched, with the reasons of both hosts at
 * once, and precopy stays possible.
 */
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

/** Runs QEMU as user nobody, who may not use userfaultfd where root alone may use it. */
const AS_NOBODY = `exec setpriv --reuid=65534 --regid=65534 --clear-groups qemu-system-x86_64 "$@"`;
const isOpenToAll = readFileSync("/proc/sys/vm/unprivileged_userfaultfd", "utf8").trim() !== "0";

async function planOf({ rig, a, b }: Pair, options: readonly string[]): Promise<PlanView> {
  return (
    await ferryJson<PlanView>(rig, a, ["plan", "refused", "--no-observe", "--to", b.destinationAddress, ...options])
  ).answer;
}

t.test("only post-copy needs userfaultfd", { skip: isOpenToAll && "userfaultfd is everybody's here" }, async (t) => {
  const pair = await openWrapped(t, GUEST);
  const { rig } = pair;
  // user nobody has to get to the sockets of its QEMU
  for (const folder of [rig.folder, dirname(rig.b.runtimeDirectory)]) chmodSync(folder, 0o755);
  chmodSync(rig.b.runtimeDirectory, 0o777);
  wrap(rig.b, AS_NOBODY);

  await t.test("a destination without userfaultfd refuses each strategy that may need post-copy", async (t) => {
    for (const options of [["--strategy=postcopy"], ["--strategy=hybrid"], AT_THE_DEADLINE]) {
      const messages = await refused(t, pair, ["postcopy-unavailable"], options);
      t.match(messages, /Userfaultfd not available.*vm\.unprivileged_userfaultfd=1/i);
    }
  });

  await t.test("a destination without userfaultfd accepts the strategies that need no post-copy", async (t) => {
    const { accepted, negotiated } = await planOf(pair, []);
    t.equal(accepted, true);
    t.match(negotiated, { strategies: "stop-and-copy, precopy" });
  });
});

t.test("a guest whose memory is a file that others may share has no post-copy", async (t) => {
  // in a directory QEMU makes a file of its own, which is gone when QEMU ends
  const backend = "memory-backend-file,id=shared,size=256M,share=on,mem-path={runtime}";
  const pair = await openPair(t, {
    guest: { ...GUEST, extra: ["-object", backend, "-machine", "memory-backend=shared"] },
  });
  const { rig, a, b, definition } = pair;

  await t.test("both agents refuse post-copy, together with everything else that is wrong", async (t) => {
    const both = ["postcopy-shared-memory", "postcopy-unavailable"];
    const messages = await refused(t, pair, both, ["--strategy=postcopy"]);
    t.match(messages, /backend shared .*TMPFS.*tmpfs/, "the message names the backend and has QEMU's own words");
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

  await t.test("--verify together with post-copy is wrong usage", async (t) => {
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

t.test("the operator is told what both agents agree on before the guest is touched, and with the result", async (t) => {
  const pair = await openPair(t, { guest: GUEST, tls: true });
  const { rig, a, b, definition } = pair;
  // the two hosts trust different peers with the guest, and yet their definitions count as the same
  define(rig.a, { ...definition, peers: ["b"] });
  define(rig.b, { ...definition, peers: ["a"] });
  await t.test("a destination refuses a guest whose definition there names other peers", async (t) => {
    define(rig.b, { ...definition, peers: ["stranger", "b"] });
    const messages = await refused(t, pair, ["guest-peers"]);
    t.match(messages, /refused\.json/);
    t.notMatch(messages, /stranger/);
    define(rig.b, { ...definition, peers: ["a"] });
  });

  await t.test("a source does not offer a guest to a peer that its definition does not name", async (t) => {
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
    "post-copy": /^on in both QEMUs; .* the guest is lost if either host is lost before .* has come$/,
    codecs: "xbzrle, zstd",
    "zstd level": "3",
    tls: "TLS 1.3, peer b",
  });
  const auto = await planOf(pair, []);
  t.match(auto.negotiated, {
    strategy: "precopy (auto)",
    strategies: "stop-and-copy, precopy, postcopy, hybrid",
    "post-copy": /^follows where precopy has no end or takes much longer/,
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
  t.equal(first.progress.bytesSent, 0, "the agreement was told before the first page");
});
