/** Tests which strategies a migration may use: what is offered, what is agreed on, and what is refused. */
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import t from "tap";
import { agree, checkContract, type DestinationFacts } from "../../../shared/protocol/handshake.ts";
import {
  type Codec,
  type Contract,
  DEADLINE_ACTIONS,
  type Offer,
  STRATEGIES,
  type Strategy,
  type TransferOffer,
} from "../../../shared/protocol/messages.ts";
import {
  asksForPostcopy,
  isPostcopy,
  needsPostcopy,
  offeredStrategies,
  postcopyMayFollow,
  refuseWish,
  versionsFor,
} from "../../../shared/protocol/strategies.ts";
import { blocks, codes, guest, host, offer } from "../../support/handshake-fixtures.ts";

/** Makes an offer of one strategy, or of all strategies with "auto". */
function asking(transfer: Partial<TransferOffer>, more: Partial<Offer> = {}): Offer {
  const { strategy = "precopy" } = transfer;
  const strategies = strategy === "auto" ? STRATEGIES : [strategy];
  return { ...offer, ...more, transfer: { ...offer.transfer, strategies, ...transfer } };
}

function agreed(asked: Offer, mine: DestinationFacts = host): Contract {
  const agreement = agree(asked, mine);
  if (agreement.kind === "contract") return agreement.contract;
  throw new Error(agreement.refusals.map((one) => one.message).join("; "));
}

const huge = [{ ...blocks[0]!, pageSize: 2 << 20 }];
const noUserfaultfd: DestinationFacts = {
  ...host,
  postcopyRefusal: { code: "postcopy-unavailable", message: "Userfaultfd not available" },
};

t.test("post-copy is agreed on where it is asked for, by the strategy or for the deadline", async (t) => {
  t.match(agreed(asking({})), { strategy: "precopy", postcopy: false, protocolVersion: 2 });
  t.match(agreed(asking({ strategy: "stop-and-copy" })), { strategy: "stop-and-copy", postcopy: false });
  t.match(agreed(asking({ strategy: "postcopy" })), { strategy: "postcopy", postcopy: true, postcopyObstacle: "" });
  t.match(agreed(asking({ strategy: "hybrid" })), { strategy: "hybrid", postcopy: true });
  const late = asking({ deadlineMs: 1000, onDeadline: "postcopy" });
  t.match(agreed(late), { strategy: "precopy", strategies: ["precopy"], postcopy: true, onDeadline: "postcopy" });
  t.match(agreed(asking({ onDeadline: "postcopy" })), { postcopy: false }, "without a deadline there is no post-copy");
});

t.test("auto begins with precopy, and the contract says what else both agents could do", async (t) => {
  t.match(agreed(asking({ strategy: "auto" })), { strategy: "precopy", strategies: STRATEGIES, postcopy: false });
  const contract = agreed(asking({ strategy: "auto" }), noUserfaultfd);
  t.match(contract, { strategy: "precopy", postcopyObstacle: "Userfaultfd not available" });
  t.same(contract.strategies, ["stop-and-copy", "precopy"]);
  const only = asking({ strategy: "auto", strategies: ["stop-and-copy", "postcopy"] });
  t.match(
    agreed(only),
    { strategy: "stop-and-copy" },
    "where precopy was not offered, the first strategy that was offered is taken",
  );
});

t.test("everything that post-copy lacks is refused at once, and a precopy migration does not mind", async (t) => {
  const poor: DestinationFacts = { ...noUserfaultfd, guest: { ...guest, ramBlocks: huge } };
  const more = { guest: { ...offer.guest, ramBlocks: huge } };
  t.same(codes(poor, asking({ strategy: "hybrid", verify: true }, more)), [
    "postcopy-verify",
    "postcopy-huge-pages",
    "postcopy-huge-pages",
    "postcopy-unavailable",
  ]);
  t.same(codes(poor, asking({ verify: true }, more)), []);
  t.match(
    agreed(asking({ strategy: "auto", verify: true }, more), poor).postcopyObstacle,
    /compared first.*huge pages/,
  );
});

t.test("each lack of post-copy has a code of its own, for its strategies and for the deadline", async (t) => {
  const wishes: readonly Partial<TransferOffer>[] = [
    { strategy: "postcopy" },
    { strategy: "hybrid" },
    { deadlineMs: 1000, onDeadline: "postcopy" },
  ];
  for (const wish of wishes) {
    t.same(codes(noUserfaultfd, asking(wish)), ["postcopy-unavailable"]);
    t.same(codes(host, asking({ ...wish, verify: true })), ["postcopy-verify"]);
    const here = asking(wish, { guest: { ...offer.guest, ramBlocks: huge } });
    t.same(codes({ ...host, guest: { ...guest, ramBlocks: huge } }, here), [
      "postcopy-huge-pages",
      "postcopy-huge-pages",
    ]);
    t.same(codes(host, here), ["postcopy-huge-pages", "ram-blocks"]);
    t.same(codes(host, asking(wish, { protocolVersions: [1] })), ["postcopy-protocol"]);
    t.same(codes({ ...host, protocolVersions: [1] }, asking(wish)), ["postcopy-protocol"]);
    t.same(codes({ ...host, protocolVersions: [1] }, asking(wish, { protocolVersions: [2] })), ["protocol-version"]);
  }
});

t.test("everything that post-copy lacks is refused together, with everything else that is wrong", async (t) => {
  const worse: Readonly<Record<string, (asked: Offer, mine: DestinationFacts) => [Offer, DestinationFacts]>> = {
    "guest-definition": (asked, mine) => [asked, { ...mine, definitionDigest: "e" }],
    "postcopy-protocol": (asked, mine) => [{ ...asked, protocolVersions: [1] }, mine],
    "postcopy-verify": (asked, mine) => [{ ...asked, transfer: { ...asked.transfer, verify: true } }, mine],
    "postcopy-unavailable": (asked, mine) => [asked, { ...mine, ...noUserfaultfd, ...mine }],
    "free-memory": (asked, mine) => [asked, { ...mine, freeMemoryBytes: 1 }],
    "cpu-model": (asked, mine) => [asked, { ...mine, guest: { ...mine.guest!, cpuModel: "max-x86_64-cpu" } }],
  };
  fc.assert(
    fc.property(fc.subarray(Object.keys(worse)), fc.constantFrom("postcopy", "hybrid"), (wrong, strategy) => {
      let [asked, mine]: [Offer, DestinationFacts] = [asking({ strategy }), host];
      for (const code of wrong) [asked, mine] = worse[code]!(asked, mine);
      // a source with another definition is not told what the QEMU there lacks
      const ofQemu = wrong.includes("guest-definition") ? ["postcopy-unavailable", "cpu-model"] : [];
      const told = wrong.filter((code) => !ofQemu.includes(code));
      t.same(codes(mine, asked), told);
    }),
  );
});

t.test("a source of protocol 1 migrates without post-copy; a newer peer agrees on what both speak", async (t) => {
  const old = asking({ strategy: "auto", strategies: ["stop-and-copy", "precopy"] }, { protocolVersions: [1] });
  t.match(agreed(old), { protocolVersion: 1, strategy: "precopy", postcopy: false, postcopyObstacle: "" });
  t.match(agreed(asking({ strategy: "postcopy" }, { protocolVersions: [3, 2] })), {
    protocolVersion: 2,
    postcopy: true,
  });
  t.match(agreed(asking({}), { ...host, protocolVersions: [3, 2] }), { protocolVersion: 2 });
});

t.test("a destination of protocol 1 says nothing of strategies, and the source fills them in", async (t) => {
  const unsaid = {
    strategies: [],
    strategy: "precopy",
    postcopy: false,
    onDeadline: "cancel",
    postcopyObstacle: "",
  } as const;
  const answer: Contract = { ...agreed(asking({})), protocolVersion: 1, ...unsaid };
  for (const strategy of ["stop-and-copy", "precopy"] as const) {
    const asked = asking({ strategy, onDeadline: "force", deadlineMs: 1 });
    t.match(checkContract(asked, answer), { strategy, strategies: [strategy], onDeadline: "force", postcopy: false });
  }
  const auto = checkContract(asking({ strategy: "auto" }), answer);
  t.match(auto, { strategy: "precopy", postcopy: false, postcopyObstacle: /protocol 2/ });
  t.same(auto.strategies, ["stop-and-copy", "precopy"]);
  t.throws(() => checkContract(asking({ strategy: "postcopy" }), answer), { code: "peer-invalid" });
  t.throws(() => checkContract(asking({ onDeadline: "postcopy", deadlineMs: 1 }), answer), { code: "peer-invalid" });
  t.throws(() => checkContract(asking({ strategy: "auto" }), { ...answer, protocolVersion: 2 }), {
    message: /strategy precopy to begin with/,
  });
});

t.test("only a migration that needs no post-copy is offered to a destination of protocol 1", async (t) => {
  const plain = { strategy: "auto", deadlineMs: 0, onDeadline: "cancel", verify: false, robust: false } as const;
  t.same(versionsFor(plain, [2, 1]), [2, 1]);
  t.same(versionsFor({ ...plain, strategy: "hybrid" }, [2, 1]), [2]);
  t.same(versionsFor({ ...plain, deadlineMs: 1, onDeadline: "postcopy" }, [3, 2]), [3, 2]);
});

t.test("the strategy that is wished for is offered, and with auto each strategy that is possible", async (t) => {
  const wish = { strategy: "auto", deadlineMs: 0, onDeadline: "cancel", verify: false, robust: false } as const;
  t.same(offeredStrategies(wish, STRATEGIES), STRATEGIES);
  t.same(offeredStrategies({ ...wish, verify: true }, STRATEGIES), ["stop-and-copy", "precopy"]);
  t.same(offeredStrategies({ ...wish, strategy: "hybrid" }, ["precopy"]), ["hybrid"]);
});

t.test("a comparison of the memory and post-copy exclude each other", async (t) => {
  const wish = { strategy: "postcopy", deadlineMs: 0, onDeadline: "cancel", verify: true, robust: false } as const;
  t.match(refuseWish(wish), [{ code: "postcopy-verify", message: /leave out --verify or post-copy/ }]);
  t.same(refuseWish({ ...wish, verify: false }), []);
  t.same(refuseWish({ ...wish, strategy: "auto" }), []);
  t.same(refuseWish({ ...wish, strategy: "precopy", onDeadline: "postcopy" }), [], "there is no deadline");
  t.equal(refuseWish({ ...wish, strategy: "precopy", onDeadline: "postcopy", deadlineMs: 1 }).length, 1);
});

t.test("robustness and post-copy exclude each other", async (t) => {
  const wish = { strategy: "hybrid", deadlineMs: 0, onDeadline: "cancel", verify: false, robust: true } as const;
  t.match(refuseWish(wish), [{ code: "postcopy-robust", message: /leave out --robust or post-copy/ }]);
  t.same(refuseWish({ ...wish, strategy: "auto" }), []);
  t.same(offeredStrategies({ ...wish, strategy: "auto" }, STRATEGIES), ["stop-and-copy", "precopy"]);
  t.equal(refuseWish({ ...wish, strategy: "precopy", onDeadline: "postcopy", deadlineMs: 1 }).length, 1);
});

t.test("post-copy may follow only with auto, for a guest that runs, without --verify and --robust", async (t) => {
  const wish = { strategy: "auto", deadlineMs: 0, onDeadline: "cancel", verify: false, robust: false } as const;
  t.equal(postcopyMayFollow(wish, false), true);
  t.equal(postcopyMayFollow(wish, true), false);
  t.equal(postcopyMayFollow({ ...wish, robust: true }, false), false);
  t.equal(postcopyMayFollow({ ...wish, verify: true }, false), false);
  t.equal(postcopyMayFollow({ ...wish, strategy: "precopy" }, false), false);
});

t.test(
  "post-copy that may follow is agreed on where both hosts can, and refuses nothing where they cannot",
  async (t) => {
    const asked = asking({ strategy: "auto", postcopyMayFollow: true });
    t.match(agreed(asked), { strategy: "precopy", postcopy: true, postcopyObstacle: "" });
    t.match(agreed(asked, noUserfaultfd), { strategy: "precopy", postcopy: false, postcopyObstacle: /./ });
    const withoutIt = asking({ strategy: "auto", strategies: ["precopy"], postcopyMayFollow: true });
    t.match(agreed(withoutIt), { strategy: "precopy", postcopy: false });
    // a destination of an older version has not read that post-copy may follow
    const older = { ...agreed(asked), postcopy: false };
    t.same(checkContract(asked, older), older);
  },
);

t.test("an offer that contradicts itself is refused", async (t) => {
  t.same(codes(host, asking({ strategy: "precopy", strategies: ["stop-and-copy"] })), ["strategy"]);
  t.same(codes(host, asking({ strategy: "auto", strategies: [] })), ["strategy"]);
});

t.test("a contract with strategies that were not offered is the destination's fault", async (t) => {
  const asked = asking({ strategy: "postcopy" });
  const contract = agreed(asked);
  t.same(checkContract(asked, contract), contract);
  const lies: readonly (readonly [Offer, Partial<Contract>, RegExp])[] = [
    [asked, { strategy: "precopy" }, /strategy precopy to begin with, of postcopy/],
    [asked, { strategies: ["postcopy", "hybrid"] }, /strategy hybrid/],
    [asked, { strategies: [] }, /strategy postcopy to begin with/],
    [asked, { postcopy: false }, /no post-copy, which is needed/],
    [asked, { onDeadline: "force" }, /force at the deadline, of cancel/],
    [asking({}), { strategy: "precopy", strategies: ["precopy"] }, /post-copy, which nothing needs/],
    [asking({ strategy: "auto", strategies: ["precopy"] }), {}, /strategy postcopy to begin|strategy postcopy/],
  ];
  for (const [offered, changes, message] of lies)
    t.throws(() => checkContract(offered, { ...contract, ...changes }), { code: "peer-invalid", message });
});

/** Leaves out the reason against post-copy: a destination of protocol 1 gives none, and the source has its own. */
const unsaid = (contract: Contract): Contract => ({ ...contract, postcopyObstacle: "" });

const strategies: fc.Arbitrary<readonly Strategy[]> = fc.subarray([...STRATEGIES]);
const codecs: fc.Arbitrary<readonly Codec[]> = fc.subarray(["xbzrle", "zstd"]);
const versions = fc.subarray([4, 3, 2, 1], { minLength: 1 });
const offers: fc.Arbitrary<Offer> = fc
  .record({
    codecs,
    strategies,
    strategy: fc.constantFrom("auto" as const, ...STRATEGIES),
    deadlineMs: fc.constantFrom(0, 1000),
    onDeadline: fc.constantFrom(...DEADLINE_ACTIONS),
    frameBytes: fc.integer({ min: 1 << 14, max: 1 << 24 }),
    creditWindowBytes: fc.integer({ min: 1, max: 1 << 30 }),
    verify: fc.boolean(),
    postcopyMayFollow: fc.boolean(),
    downtimeTargetMs: fc.nat(),
  })
  .chain((transfer) => versions.map((protocolVersions) => ({ ...offer, protocolVersions, transfer })));
const destinations: fc.Arbitrary<DestinationFacts> = fc
  .record({
    protocolVersions: versions,
    codecs,
    frameBytesMax: fc.integer({ min: 1 << 14, max: 1 << 24 }),
    creditWindowBytesMax: fc.integer({ min: 1, max: 1 << 30 }),
  })
  .chain((facts) => fc.constantFrom(host, noUserfaultfd).map((one) => ({ ...one, ...facts })));

t.test("a contract never has more than was offered, nor more than the destination can do", async (t) => {
  let contracts = 0;
  fc.assert(
    fc.property(offers, destinations, (asked, mine) => {
      const agreement = agree(asked, mine);
      if (agreement.kind === "refusals") return agreement.refusals.length > 0;
      contracts += 1;
      const { contract } = agreement;
      const { transfer } = asked;
      const able = mine.postcopyRefusal === undefined && contract.protocolVersion >= 2 && !transfer.verify;
      return (
        isDeepStrictEqual(unsaid(checkContract(asked, contract)), unsaid(contract)) &&
        asked.protocolVersions.includes(contract.protocolVersion) &&
        mine.protocolVersions.includes(contract.protocolVersion) &&
        contract.strategies.every((one) => transfer.strategies.includes(one) && (able || !isPostcopy(one))) &&
        contract.strategies.includes(contract.strategy) &&
        contract.postcopy ===
          (needsPostcopy({ ...transfer, strategy: contract.strategy }) ||
            (transfer.postcopyMayFollow && contract.strategies.some(isPostcopy))) &&
        (able || !contract.postcopy) &&
        (contract.postcopyObstacle === "") === (able || !asksForPostcopy(transfer)) &&
        contract.codecs.every((one) => transfer.codecs.includes(one) && mine.codecs.includes(one)) &&
        contract.frameBytes <= Math.min(transfer.frameBytes, mine.frameBytesMax) &&
        contract.creditWindowBytes <= Math.min(transfer.creditWindowBytes, mine.creditWindowBytesMax)
      );
    }),
    { numRuns: 2000 },
  );
  t.ok(contracts > 300, `${contracts} contracts`);
});
