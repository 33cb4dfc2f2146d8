/** Tests the state *negotiating*: what the destination is told of the guest, and what comes of its answer. */
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import type { FoundGuest } from "../../../../agent-source/guest/look-at-guest.ts";
import { askDestination, negotiate } from "../../../../agent-source/migration/phases/negotiate.ts";
import { plan } from "../../../../agent-source/migration/phases/plan.ts";
import { alike } from "../../../support/handshake-fixtures.ts";
import { folder } from "../../../support/link-fixtures.ts";
import { type PhaseOptions, sourcePhase } from "../../../support/source-cx.ts";

async function negotiating(t: Test, options: PhaseOptions & { readonly status?: string } = {}) {
  const phase = await sourcePhase(t, options.status ?? "running", options);
  const state = await plan({ kind: "planned" }, phase.cx);
  t.teardown(() => state.qmp.close());
  phase.destination.agree = alike();
  /** @param facts what else is known of the guest */
  const agreed = (facts: Partial<FoundGuest> = {}) =>
    negotiate({ ...state, facts: { ...state.facts, ...facts } }, phase.cx);
  return { ...phase, state, agreed };
}

t.test("the offer has the guest as its QEMU has it, and what the operator asks for", async (t) => {
  const { agreed, destination, cx, state, happened } = await negotiating(t);
  const { kind, contract } = await agreed();
  t.equal(kind, "staging");
  t.match(destination.offers, [
    {
      migrationId: cx.id,
      sourceAddress: "alpha:7411",
      ...{ dryRun: false, measureLink: false, saysKept: true, protocolVersions: [2, 1] },
      guest: { name: "web", machineType: "pc-q35-10.0", paused: false, definitionDigest: state.definition.digest },
      transfer: { codecs: ["zstd"], downtimeTargetMs: 250, deadlineMs: 60_000, onDeadline: "force", verify: true },
    },
  ]);
  t.same(Buffer.from(destination.offers[0]?.token ?? []), Buffer.from(cx.token));
  t.match(contract, { protocolVersion: 2, strategy: "precopy", codecs: ["zstd"] });
  t.same(happened, [], "nothing is written or said to QEMU before the destination dials in");
});

t.test("the operator sees what was agreed on, and the destination's warnings", async (t) => {
  const { agreed, cx, destination } = await negotiating(t);
  destination.agree = (offer) => {
    const answer = alike()(offer);
    if (answer.kind !== "contract") return answer;
    return { ...answer, contract: { ...answer.contract, warnings: ["The hosts' clocks differ."] } };
  };
  await agreed();
  t.match(cx.report.negotiated, { "protocol version": "2", strategy: "precopy", verify: "yes", codecs: "zstd" });
  t.same(cx.report.degradations, ["The hosts' clocks differ."]);
});

t.test("a destination's refusal fails the migration with every reason, and names the destination", async (t) => {
  const { agreed, destination } = await negotiating(t);
  const refusals = ["memory", "machine-type-unknown"].map((code) => ({ code, message: `no ${code}` }));
  destination.agree = () => ({ kind: "refusals", refusals });
  await t.rejects(agreed(), {
    code: "refused",
    message: /^The destination .* refused web: no memory; no machine-type-unknown$/,
    refusals,
    role: "destination",
    advice: /Mend what is listed/,
  });
});

t.test("a source that refuses asks the destination all the same, only to check, and tells all reasons", async (t) => {
  const { agreed, destination } = await negotiating(t, { status: "io-error" });
  destination.agree = () => ({ kind: "refusals", refusals: [{ code: "memory", message: "8 GiB needed" }] });
  await t.rejects(agreed(), {
    code: "refused",
    message: /^This migration of web cannot be: The guest is io-error.*; 8 GiB needed$/,
    refusals: [{ code: "guest-not-running" }, { code: "memory" }],
  });
  t.match(destination.offers, [{ dryRun: true }]);
});

t.test("with a reason of the source, a destination that cannot be asked is one more reason", async (t) => {
  const { agreed, destination } = await negotiating(t, { status: "io-error" });
  await destination.close();
  await t.rejects(agreed(), {
    code: "refused",
    refusals: [
      { code: "guest-not-running" },
      { code: "peer-unreachable", message: /^The destination was not asked: / },
    ],
  });
});

t.test("a destination that cannot be reached fails the migration, with what to look at", async (t) => {
  const { agreed, destination, cx } = await negotiating(t);
  await destination.close();
  await t.rejects(agreed(), {
    code: "peer-unreachable",
    advice: `See that ferry-destination runs at ${cx.call.to}, and that this host reaches it`,
  });
});

t.test("the operator's cancel ends the wait for an answer, also where the source refuses", async (t) => {
  for (const status of ["running", "io-error"]) {
    const { agreed, destination, cancel } = await negotiating(t, { status });
    destination.agree = () => {
      cancel();
      return new Promise(() => undefined);
    };
    await t.rejects(agreed(), { code: "cancelled" }, status);
  }
});

t.test("a contract that goes beyond the offer is not taken", async (t) => {
  const { agreed, destination } = await negotiating(t);
  destination.agree = (offer) => {
    const answer = alike()(offer);
    return answer.kind === "contract" ? { ...answer, contract: { ...answer.contract, codecs: ["xbzrle"] } } : answer;
  };
  await t.rejects(agreed(), { code: "peer-invalid" });
});

t.test("a paused guest is offered only to agents that leave it paused, and without post-copy", async (t) => {
  const asked = { strategy: "hybrid", verify: false } as const;
  const { agreed, destination } = await negotiating(t, { status: "paused", asked });
  await agreed();
  t.match(destination.offers, [
    { protocolVersions: [2], guest: { paused: true }, transfer: { strategy: "precopy", strategies: ["precopy"] } },
  ]);
  destination.agree = alike({ protocolVersions: [1] });
  await t.rejects(agreed(), {
    code: "refused",
    refusals: [
      { code: "protocol-version", message: /an older destination agent would start the guest, which is paused/ },
    ],
  });
});

t.test(
  "with auto a guest that runs is offered with post-copy that may follow, unless --robust excludes it",
  async (t) => {
    const auto = { strategy: "auto", verify: false, onDeadline: "cancel" } as const;
    const wanted = await negotiating(t, { asked: auto });
    await wanted.agreed();
    t.match(wanted.destination.offers, [{ transfer: { strategy: "auto", postcopyMayFollow: true } }]);
    const robust = await negotiating(t, { asked: { ...auto, robust: true } });
    await robust.agreed();
    const hinting = await negotiating(t, { asked: auto });
    await hinting.agreed({ verifyRefusals: [{ code: "verify-free-page-hint", message: "The balloon hints" }] });
    t.match(hinting.destination.offers, [{ transfer: { postcopyMayFollow: false } }]);
    t.match(robust.destination.offers, [
      { transfer: { postcopyMayFollow: false, strategies: ["stop-and-copy", "precopy"] } },
    ]);
  },
);

t.test("post-copy that the operator asks for is a reason against a guest whose QEMU cannot do it", async (t) => {
  const postcopyRefusals = [{ code: "postcopy-shared-memory", message: "Memory backend ram is shared" }];
  const wanted = await negotiating(t, { asked: { strategy: "postcopy", verify: false } });
  await t.rejects(wanted.agreed({ postcopyRefusals }), { code: "refused", refusals: postcopyRefusals });
  const free = await negotiating(t, { asked: { strategy: "auto", verify: false, onDeadline: "cancel" } });
  t.match(await free.agreed({ postcopyRefusals }), { contract: { postcopy: false } });
  t.match(free.destination.offers, [{ transfer: { strategies: ["stop-and-copy", "precopy"] } }]);
});

t.test("a destination that is too old for post-copy is refused with post-copy's own reason", async (t) => {
  const { agreed, destination } = await negotiating(t, { asked: { strategy: "postcopy", verify: false } });
  destination.agree = alike({ protocolVersions: [1] });
  await t.rejects(agreed(), {
    code: "refused",
    refusals: [{ code: "postcopy-protocol", message: /needs protocol 2.*upgrade that agent, or choose precopy/ }],
  });
});

t.test("a reason against a comparison counts only where the operator asks for one", async (t) => {
  const verifyRefusals = [{ code: "verify-free-page-hint", message: "The balloon tells which pages are free" }];
  const verifying = await negotiating(t);
  await t.rejects(verifying.agreed({ verifyRefusals }), { code: "refused", refusals: verifyRefusals });
  const plain = await negotiating(t, { asked: { verify: false } });
  t.match(await plain.agreed({ verifyRefusals }), { kind: "staging" });
});

t.test("where the definitions differ, the operator also sees the digest of the one here", async (t) => {
  const { agreed, destination, state } = await negotiating(t);
  destination.agree = alike({ definitionDigest: "f".repeat(64) });
  await t.rejects(agreed(), {
    code: "refused",
    refusals: [
      { code: "guest-definition", message: new RegExp(`at the source is ${state.definition.digest.slice(0, 12)}`) },
    ],
  });
});

t.test("a guest whose definition lists its peers is offered to nobody who proves no name", async (t) => {
  const { agreed, destination } = await negotiating(t, { definition: { peers: ["beta.example"] } });
  await t.rejects(agreed(), { code: "not-authorised", message: /without TLS.*may not take web/ });
  t.same(destination.offers, []);
});

t.test("the mark beside the guest's images is there while the destination is asked, and gone afterwards", async (t) => {
  const images = folder(t);
  const file = join(images, "disk.raw");
  writeFileSync(file, "");
  const image = { format: "raw", file, byteLength: 0, writable: true, inode: "1", baseName: "disk.raw" };
  const drive = { name: "disk0", qdev: "disk0", removable: false, place: "disk0", layers: [image] };
  for (const answer of ["contract", "refusal", "none"]) {
    const { state, cx, destination } = await negotiating(t, { asked: { verify: false } });
    const facts = { ...state.facts, disks: { ...state.facts.disks, drives: [drive] } };
    let seen = "";
    destination.agree = (offer) => {
      const { name = "", content } = offer.guest.mark ?? {};
      seen = content !== undefined && existsSync(join(images, name)) ? name : "";
      if (answer === "none") throw new TypeError("no answer");
      return answer === "contract"
        ? alike()(offer)
        : { kind: "refusals", refusals: [{ code: "memory", message: "no" }] };
    };
    await askDestination(cx, state.definition, facts, { dryRun: false, measureLink: false }).catch(() => undefined);
    t.match(seen, /^\.ferry-/, answer);
    t.notOk("qdev" in (destination.offers[0]?.guest.disks?.drives[0] ?? {}), "names of this QEMU alone stay here");
    t.same(readdirSync(images), ["disk.raw"], answer);
  }
});
