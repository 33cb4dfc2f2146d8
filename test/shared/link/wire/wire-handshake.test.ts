/** Tests the translation of the handshake, also with agents of protocol 1. */
import fc from "fast-check";
import t from "tap";
import { destinationService } from "../../../../shared/link/grpc/services.ts";
import { methodOf } from "../../../../shared/link/wire/proto-files.ts";
import { agree, checkContract } from "../../../../shared/protocol/handshake.ts";
import { type Contract, DEADLINE_ACTIONS, type Offer, STRATEGIES } from "../../../../shared/protocol/messages.ts";
import { host, offer as plainOffer } from "../../../support/handshake-fixtures.ts";
import { offer } from "../../../support/link-fixtures.ts";
import { CONTRACT } from "../../../support/message-samples.ts";

const { Handshake } = destinationService;
const wire = methodOf("DestinationService", "Handshake");

const back = (offered: Offer) => Handshake.requestDeserialize(Buffer.from(Handshake.requestSerialize(offered)));
const there = (contract: Contract) =>
  Handshake.responseDeserialize(Buffer.from(Handshake.responseSerialize({ kind: "contract", contract })));
/** Reads an offer with these fields. */
const read = (transfer: object) => Handshake.requestDeserialize(wire.requestSerialize({ ...offer, transfer }));

const contract: Contract = {
  ...CONTRACT,
  codecs: ["xbzrle"],
  strategies: ["stop-and-copy", "precopy"],
  strategy: "precopy",
  postcopy: false,
  onDeadline: "force",
  warnings: [],
};

t.test("an offer, and either answer to it, arrive as they were", async (t) => {
  t.same(back(offer), offer);
  t.same(there(contract), { kind: "contract", contract });
  const refused = { kind: "refusals", refusals: [{ code: "qemu-older", message: "QEMU 9.0 is older" }] } as const;
  t.same(Handshake.responseDeserialize(Buffer.from(Handshake.responseSerialize(refused))), refused);
});

t.test("strategies and the action at the deadline arrive as they were, whichever they are", async (t) => {
  const strategies = fc.subarray([...STRATEGIES], { minLength: 1 });
  const onDeadline = fc.constantFrom(...DEADLINE_ACTIONS);
  const wish = fc.record({ strategies, onDeadline, strategy: fc.constantFrom("auto" as const, ...STRATEGIES) });
  const terms = fc.record({ strategies, onDeadline, strategy: fc.constantFrom(...STRATEGIES), postcopy: fc.boolean() });
  fc.assert(
    fc.property(wish, terms, (wish, terms) => {
      const offered = { ...offer, transfer: { ...offer.transfer, ...wish } };
      t.same(back(offered), offered);
      const agreed = { ...contract, ...terms };
      t.same(there(agreed), { kind: "contract", contract: agreed });
    }),
    { numRuns: 60 },
  );
});

t.test("codecs and strategies of a later version are ignored, and other words are the peer's fault", async (t) => {
  t.match(read({ ...offer.transfer, codecs: ["lz5", "zstd"] }), { transfer: { codecs: ["zstd"] } });
  const known = read({ ...offer.transfer, strategies: ["teleport", "hybrid"] });
  t.match(known, { transfer: { strategies: ["hybrid"] } });
  t.match(read({ ...offer.transfer, onDeadline: "wait" }), { code: "peer-invalid", message: /wait/ });
  t.match(read({ ...offer.transfer, deadlineAction: "wait" }), { code: "peer-invalid", message: /wait/ });
  t.match(read({ ...offer.transfer, strategy: "fast" }), { code: "peer-invalid", message: /fast/ });
});

/** The fields that protocol 1 has, and no others. */
const transferOf1 = {
  codecs: ["xbzrle", "zstd"],
  downtimeTargetMs: 300,
  deadlineMs: 60_000,
  onDeadline: "force",
  frameBytes: 262_144,
  creditWindowBytes: 2 ** 24,
  verify: true,
};

t.test("a source of protocol 1 says nothing of strategies, and is accepted", async (t) => {
  const { protocolVersions: _, transfer: __, ...rest } = plainOffer;
  const asked = Handshake.requestDeserialize(
    wire.requestSerialize({ ...rest, protocolVersions: [1], transfer: transferOf1 }),
  );
  if (asked instanceof Error) throw asked;
  t.match(asked.transfer, { strategy: "auto", onDeadline: "force", verify: true });
  t.same(asked.transfer.strategies, ["stop-and-copy", "precopy"]);
  t.match(agree(asked, host), { kind: "contract", contract: { protocolVersion: 1, postcopy: false } });
});

t.test("a destination of protocol 1 accepts, and the source fills in what it left out", async (t) => {
  const { strategies: _, strategy: __, postcopy: ___, onDeadline: ____, postcopyObstacle: _____, ...of1 } = contract;
  const answer = Handshake.responseDeserialize(
    wire.responseSerialize({ contract: { ...of1, protocolVersion: 1, ramBlocks: plainOffer.guest.ramBlocks } }),
  );
  if (answer instanceof Error || answer.kind !== "contract") throw new Error("no contract");
  const asked: Offer = {
    ...plainOffer,
    transfer: { ...plainOffer.transfer, creditWindowBytes: 2 ** 33, strategy: "auto", strategies: STRATEGIES },
  };
  t.match(checkContract(asked, answer.contract), {
    strategies: ["stop-and-copy", "precopy"],
    strategy: "precopy",
    postcopy: false,
    onDeadline: "cancel",
  });
});

t.test("an agent of protocol 1 can read an offer of post-copy, and refuses it for the version", async (t) => {
  const offered = { ...offer, transfer: { ...offer.transfer, onDeadline: "postcopy" as const } };
  const { transfer } = JSON.parse(
    JSON.stringify(wire.requestDeserialize(Buffer.from(Handshake.requestSerialize(offered)))),
  );
  t.equal(transfer.onDeadline, "cancel", "the action is one of the two that protocol 1 takes");
  t.equal(transfer.deadlineAction, "postcopy");
});

t.test("an offer with a text or a list that is too long is refused before it is logged or kept", async (t) => {
  const long = "x".repeat(257);
  const many = (count: number): number[] => Array.from({ length: count }, (_, index) => index);
  const guest = (more: object): object => ({ guest: { ...offer.guest, ...more } });
  for (const [more, message] of [
    [guest({ name: long }), /guest name has 257 characters/],
    [guest({ definitionDigest: long }), /definition digest has 257/],
    [guest({ machineType: long }), /machine type has 257/],
    [guest({ cpuModel: long }), /CPU model has 257/],
    [guest({ cpuFeatures: { [long]: 1 } }), /cpu_features has 257/],
    [guest({ cpuFeatures: Object.fromEntries(many(4097).map((one) => [`${one}`, one])) }), /cpu_features are 4097/],
    [guest({ ramBlocks: [{ name: long, byteLength: 4096, pageSize: 4096 }] }), /block name has 257/],
    [{ sourceAddress: "x".repeat(301) }, /source address has 301 characters; at most 300 /],
    [{ protocolVersions: many(65) }, /protocol versions are 65; at most 64 /],
  ] as const)
    t.match(Handshake.requestDeserialize(wire.requestSerialize({ ...offer, ...more })), {
      code: "peer-invalid",
      message,
    });
});

t.test("a peer's text that does not have the form of a code is read as unknown", async (t) => {
  for (const [code, wanted] of [
    ["qemu-older", "qemu-older"],
    ["\u001b[2Jmoved", "unknown"],
    ["", "unknown"],
    ["x".repeat(65), "unknown"],
  ] as const) {
    const answer = { refusals: { reasons: [{ code, message: "" }] } };
    t.match(Handshake.responseDeserialize(wire.responseSerialize(answer)), { refusals: [{ code: wanted }] });
  }
});
