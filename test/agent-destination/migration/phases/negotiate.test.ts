/**
 * Tests how an offer is judged with a QEMU: what the source is answered and when, what the journal says, and that no
 * QEMU is left where the offer is not taken. The judgement itself is in shared/protocol/handshake.ts.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t, { type Test } from "tap";
import { negotiate } from "../../../../agent-destination/migration/phases/negotiate.ts";
import type { HandshakeAnswer, Offer } from "../../../../shared/protocol/messages.ts";
import { loadDestinationConfig } from "../../../../shared/runtime/config/config.ts";
import { loadGuest } from "../../../../shared/runtime/guest/guest-definition.ts";
import { hasEnded } from "../../../../shared/runtime/host/process-identity.ts";
import { bounded } from "../../../support/bounded.ts";
import { destinationPhase, ID } from "../../../support/destination-cx.ts";
import { offer as anyOffer } from "../../../support/handshake-fixtures.ts";
import { placesIn } from "../../../support/source-again.ts";

/** The simulated QEMU, whichever of the sources and the build this test runs from. */
const PROGRAM = fileURLToPath(import.meta.resolve("../../../support/fake-qemu-program.js")).replace(
  /\.js$/,
  import.meta.url.endsWith(".ts") ? ".ts" : ".js",
);

interface Negotiating {
  /** Words for the simulated QEMU. */
  readonly words?: readonly string[];
  readonly dryRun?: boolean;
  readonly guest?: Partial<Offer["guest"]>;
  readonly strategies?: Offer["transfer"]["strategies"];
  /** True where another QEMU answers at the guest's monitor already. */
  readonly isThere?: boolean;
}

/** Lets an offer of the very guest that is defined here be judged. */
async function negotiating(t: Test, options: Negotiating = {}) {
  const { words = [], dryRun = false, guest, strategies = ["precopy"], isThere = false } = options;
  const phase = await destinationPhase(t);
  const qmp = isThere ? phase.qemu.path : "{runtime}/web.qmp";
  const command = [process.execPath, PROGRAM, "-qmp", "unix:{runtime}/web.qmp,server=on,wait=off", ...words];
  const config = loadDestinationConfig([...placesIn(t, qmp, { command }), "--memory-reserve=0"], {});
  const cx = { ...phase.cx, config };
  const definition = await loadGuest("web", config);
  const ramBlocks = [{ name: "pc.ram", byteLength: 1 << 20, pageSize: 4096 }];
  const alike = { ...anyOffer.guest, definitionDigest: definition.digest, ramBlocks, cpuFeatures: {}, ...guest };
  const transfer = { ...anyOffer.transfer, strategies, strategy: strategies[0] ?? "precopy" };
  const offer: Offer = { ...anyOffer, sourceAddress: "127.0.0.1:7411", dryRun, guest: alike, transfer };
  // what stands in the journal when the answer is given, and whether its QEMU has ended by then
  const answered = cx.answer.promise.then(async (answer) => {
    const record = cx.journal.latest(ID);
    return { answer, record, isOver: record?.qemu === undefined || (await hasEnded(record.qemu)) };
  });
  answered.catch(() => undefined);
  const judged = async () => {
    const next = await bounded(negotiate({ kind: "negotiating", offer, definition }, cx), 60_000, "the judgement");
    if (next.kind === "staging")
      t.teardown(async () => {
        next.source?.close();
        await next.guest.discard();
      });
    return next;
  };
  return { ...phase, config, judged, answered };
}

const codesOf = (answer: HandshakeAnswer): readonly string[] =>
  answer.kind === "contract" ? [] : answer.refusals.map(({ code }) => code);

t.test("an offer of an equal guest is accepted, and the journal names the QEMU before the source knows", async (t) => {
  const { judged, answered, steps, config } = await negotiating(t);
  const next = await judged();
  t.match(next, { kind: "staging", contract: { strategy: "precopy", postcopy: false }, disks: { drives: [] } });
  if (next.kind !== "staging") return;
  t.ok(next.source, "the way to the source was begun meanwhile");
  const { answer, record } = await answered;
  t.match(answer, { kind: "contract" });
  t.match(record, { kind: "waiting", qemu: next.guest.process });
  t.same(steps, ["journal: waiting", "journal: waiting"], "the first record is there before QEMU is started");
  t.equal(next.guest.definition.qmp, join(config.runtimeDirectory, "web.qmp"));
  t.equal(await next.guest.hasEnded(), false);
});

t.test(
  "a check is answered when its QEMU has ended, so that a source that comes at once finds its way free",
  async (t) => {
    const { judged, answered } = await negotiating(t, { dryRun: true });
    t.match(await judged(), {
      kind: "discarding",
      ...{ undo: {}, refused: false, fault: { code: "refused", message: "Only a check was asked for" } },
    });
    t.match(await answered, { answer: { kind: "contract" }, isOver: true });
  },
);

t.test("an offer of another guest is refused with every reason, when QEMU has ended", async (t) => {
  const { judged, answered } = await negotiating(t, { guest: { machineType: "pc-q35-9.0", cpuModel: "host" } });
  t.match(await judged(), { kind: "discarding", fault: { message: "The offer was refused" }, refused: false });
  const { answer, isOver } = await answered;
  t.same(codesOf(answer).toSorted(), ["cpu-model", "machine-type"]);
  t.ok(isOver);
});

t.test("a QEMU that ends while it is looked at is a reason of the refusal, in its own words", async (t) => {
  const { judged, answered } = await negotiating(t, { words: ["ends-at", "query-block"] });
  t.match(await judged(), { kind: "discarding" });
  const { answer } = await answered;
  t.same(codesOf(answer), ["qemu-start"]);
  t.match(answer, { refusals: [{ message: /query-block is too much for me/ }] });
});

t.test("a QEMU that lives and does not tell what is asked is ended, and the fault is the migration's", async (t) => {
  const { judged, cx } = await negotiating(t, { words: ["refuses", "query-block"] });
  await t.rejects(judged(), { code: "qmp-command", message: /it does not say/ });
  const { qemu } = cx.journal.latest(ID) ?? {};
  t.ok(qemu !== undefined && (await hasEnded(qemu)));
});

t.test("no QEMU is started where another one answers at the guest's monitor", async (t) => {
  const { judged, answered, steps, qemu } = await negotiating(t, { isThere: true });
  t.match(await judged(), { kind: "discarding" });
  t.same(codesOf((await answered).answer), ["guest-exists"]);
  t.same(steps, []);
  t.ok(qemu.isAlive);
});

t.test("post-copy is tried out with this very QEMU, and what speaks against it is told", async (t) => {
  const able = await negotiating(t, { strategies: ["precopy", "postcopy"] });
  t.match(await able.judged(), { kind: "staging" });
  const unable = await negotiating(t, {
    strategies: ["postcopy"],
    words: ["refuses", "migrate-set-capabilities"],
  });
  t.match(await unable.judged(), { kind: "discarding" });
  t.same(codesOf((await unable.answered).answer), ["postcopy-unavailable"]);
});
