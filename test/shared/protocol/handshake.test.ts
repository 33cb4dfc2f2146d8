/** Tests the rules of the handshake: what two hosts agree on, and what is refused. */
import fc from "fast-check";
import t from "tap";
import {
  agree,
  canStayPaused,
  checkContract,
  checkMigrations,
  type DestinationFacts,
  describeBlocks,
  PROTOCOL_VERSIONS,
} from "../../../shared/protocol/handshake.ts";
import type { Contract } from "../../../shared/protocol/messages.ts";
import { blocks, codes, guest, host, offer } from "../../support/handshake-fixtures.ts";

t.test("two hosts that are alike agree on the smaller of what each can do", async (t) => {
  const agreement = agree(offer, { ...host, codecs: ["zstd"] });
  t.match(agreement, {
    kind: "contract",
    contract: { protocolVersion: 2, codecs: ["zstd"], frameBytes: 262_144, creditWindowBytes: 8 << 20 },
  });
});

t.test("each difference is refused with a code of its own", async (t) => {
  t.same(codes({ ...host, protocolVersions: [7] }), ["protocol-version"]);
  t.same(codes({ ...host, definitionDigest: "e" }), ["guest-definition"]);
  t.same(codes({ ...host, freeMemoryBytes: 600 << 20 }), ["free-memory"]);
  t.same(codes({ ...host, guest: { ...guest, machineType: "pc-q35-9.0" } }), ["machine-type"]);
  t.same(codes({ ...host, guest: { ...guest, qemuVersion: { major: 8, minor: 1, micro: 0 } } }), ["qemu-version"]);
  t.same(codes({ ...host, guest: { ...guest, cpuModel: "max-x86_64-cpu" } }), ["cpu-model"]);
  t.same(codes({ ...host, guest: { ...guest, cpuFeatures: { "1:edx": 0x07 } } }), ["cpu-features"]);
  t.same(codes({ ...host, guest: { ...guest, ramBlocks: [] } }), ["ram-blocks"]);
  t.same(codes({ ...host, guest: { ...guest, cpuFeatures: { "1:edx": 0xff } } }), [], "more features do no harm");
});

t.test("all reasons come at once, with those that were found before", async (t) => {
  const bad = {
    ...host,
    refusals: [{ code: "qemu-start", message: "it did not start" }],
    protocolVersions: [9],
    freeMemoryBytes: 0,
    guest: { ...guest, machineType: "pc", cpuModel: "x", ramBlocks: [] },
  };
  t.same(codes(bad), ["qemu-start", "protocol-version", "free-memory", "machine-type", "cpu-model", "ram-blocks"]);
});

t.test("an offer of another definition learns nothing of the guest at the destination", async (t) => {
  const other = {
    ...host,
    definitionDigest: "e".repeat(64),
    guest: { ...guest, machineType: "secret-machine", cpuModel: "secret-cpu", ramBlocks: [] },
    postcopyRefusal: { code: "postcopy-unavailable", message: "secret words of QEMU" },
    definedBytes: 2 ** 60,
  };
  const hybrid = { ...offer, transfer: { ...offer.transfer, strategies: ["hybrid"], strategy: "hybrid" } } as const;
  t.same(codes(other, hybrid), ["guest-definition"]);
  const told = JSON.stringify(agree(offer, other));
  t.notMatch(told, /secret|eeee|dddd/, "not even a digit of either digest");
  t.match(told, /web\.json in guests\.directory of both hosts/);
});

t.test(
  "memory is what the definition says where an offer claims less, and memory that others were promised is not free",
  (t) => {
    const claims = { ...offer, guest: { ...offer.guest, ramBlocks: [] } };
    const free = { ...host, guest: { ...guest, ramBlocks: [] }, reserveBytes: 0, freeMemoryBytes: 600 << 20 };
    t.same(codes({ ...free, definedBytes: 600 << 20 }, claims), []);
    t.same(codes({ ...free, definedBytes: 601 << 20 }, claims), ["free-memory"]);
    const agreement = agree(claims, { ...free, definedBytes: 601 << 20, promisedBytes: 8 * 2 ** 30 });
    t.match(agreement, { refusals: [{ message: /600 MiB free, beside the 8192 MiB that guests on their way/ }] });
    t.end();
  },
);

/** The reasons that are known before a QEMU is started, and so are told to a source with another definition too. */
const AHEAD = ["protocol-version", "guest-definition", "free-memory"];

t.test("everything that is wrong is refused together, in one order, and nothing else is refused", async (t) => {
  const worse: Readonly<Record<string, (facts: DestinationFacts) => DestinationFacts>> = {
    "protocol-version": (facts) => ({ ...facts, protocolVersions: [7] }),
    "guest-definition": (facts) => ({ ...facts, definitionDigest: "e" }),
    "free-memory": (facts) => ({ ...facts, freeMemoryBytes: 1 }),
    "machine-type": (facts) => ({ ...facts, guest: { ...facts.guest!, machineType: "pc-q35-9.0" } }),
    "qemu-version": (facts) => ({
      ...facts,
      guest: { ...facts.guest!, qemuVersion: { major: 8, minor: 2, micro: 0 } },
    }),
    "cpu-model": (facts) => ({ ...facts, guest: { ...facts.guest!, cpuModel: "max-x86_64-cpu" } }),
    "cpu-features": (facts) => ({ ...facts, guest: { ...facts.guest!, cpuFeatures: {} } }),
    "ram-blocks": (facts) => ({ ...facts, guest: { ...facts.guest!, ramBlocks: [] } }),
  };
  fc.assert(
    fc.property(fc.subarray(Object.keys(worse)), (wrong) => {
      const facts = wrong.reduce((mine, code) => worse[code]!(mine), host);
      const isAlike = !wrong.includes("guest-definition");
      t.same(
        codes(facts),
        wrong.filter((code) => isAlike || AHEAD.includes(code)),
      );
    }),
  );
});

t.test("without a definition or a QEMU of its own a destination refuses only what it can see", async (t) => {
  const { definitionDigest: _digest, guest: _guest, ...bare } = host;
  const refusals = [{ code: "guest-unknown", message: "no definition" }];
  t.same(codes({ ...bare, refusals }), ["guest-unknown"]);
  t.same(codes({ ...bare, refusals, freeMemoryBytes: 0 }), ["guest-unknown", "free-memory"]);
});

t.test("the newest protocol version that both agents speak is taken", async (t) => {
  const version = (theirs: number[], mine: number[]) => {
    const agreement = agree({ ...offer, protocolVersions: theirs }, { ...host, protocolVersions: mine });
    return agreement.kind === "contract" ? agreement.contract.protocolVersion : undefined;
  };
  t.equal(version([3, 2], [3, 2]), 3);
  t.equal(version([3, 2], [2, 1]), 2);
  t.equal(version([2, 1], [3, 2]), 2);
  t.equal(version([2, 1], [4, 3]), undefined);
});

t.test("RAM blocks are compared by name, size and page size", async (t) => {
  t.equal(describeBlocks(blocks, blocks), "");
  t.match(
    describeBlocks(blocks, [{ ...blocks[0]!, byteLength: 4096 }]),
    /pc\.ram has 536870912 bytes at the source and 4096/,
  );
  t.match(describeBlocks(blocks, [{ ...blocks[0]!, pageSize: 2 << 20 }]), /pages of 4096 bytes/);
  t.match(describeBlocks([], blocks), /only at the destination/);
  t.match(describeBlocks(blocks, []), /pc\.ram is missing at the destination/);
  const other = [{ ...blocks[0]!, name: "pc.bios" }];
  t.equal(describeBlocks(blocks, other), "pc.ram is missing at the destination; pc.bios is only at the destination");
});

t.test("a contract for more than was offered, or for other blocks, is the destination's fault", async (t) => {
  const accepted = agree(offer, host);
  if (accepted.kind !== "contract") throw new Error("refused");
  const { contract } = accepted;
  t.doesNotThrow(() => checkContract(offer, contract));
  const lies: readonly (readonly [changes: Partial<Contract>, message: RegExp])[] = [
    [{ protocolVersion: 99 }, /protocol 99/],
    [{ frameBytes: 1 << 30 }, /frames of 1073741824 bytes/],
    [{ frameBytes: 0 }, /frames of 0 bytes/],
    [{ creditWindowBytes: 2 ** 40 }, /a credit of 1099511627776/],
    [{ creditWindowBytes: 0 }, /a credit of 0/],
    [{ ramBlocks: [] }, /other RAM blocks/],
    [{ ramBlocks: [...contract.ramBlocks, ...contract.ramBlocks] }, /twice at the destination/],
  ];
  for (const [changes, message] of lies)
    t.throws(() => checkContract(offer, { ...contract, ...changes }), { code: "peer-invalid", message });
  const plain = { ...offer, transfer: { ...offer.transfer, codecs: [] } };
  t.throws(() => checkContract(plain, { ...contract, codecs: ["xbzrle"] }), { message: /codec xbzrle/ });
});

t.test("a migration beyond `migrations.max` is refused, and the operator is told what to do", async (t) => {
  t.doesNotThrow(() => checkMigrations("source", 3, 4));
  t.throws(() => checkMigrations("destination", 4, 4), {
    code: "busy",
    message: "The destination has 4 migrations under way (migrations.max)",
    advice: /raise migrations\.max of the destination agent/,
  });
});

t.test("a paused guest is offered only to agents that leave it so: one of protocol 1 refuses by itself", async (t) => {
  const paused = {
    ...offer,
    protocolVersions: PROTOCOL_VERSIONS.filter(canStayPaused),
    guest: { ...offer.guest, paused: true },
  };
  t.match(agree(paused, { ...host, protocolVersions: [1] }), {
    kind: "refusals",
    refusals: [{ code: "protocol-version" }],
  });
  t.match(agree(paused, { ...host, protocolVersions: PROTOCOL_VERSIONS }), { contract: { protocolVersion: 2 } });
  t.match(agree(offer, { ...host, protocolVersions: [1] }), { contract: { protocolVersion: 1 } }, "the guest runs");
  t.same(PROTOCOL_VERSIONS.map(canStayPaused), [true, false]);
});
