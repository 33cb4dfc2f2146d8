/**
 * Fixtures of a handshake: a guest, the offer of its source, and the facts of a destination that is like the source.
 */
import { type Agreement, agree, type DestinationFacts } from "../../shared/protocol/handshake.ts";
import type { Offer } from "../../shared/protocol/messages.ts";

export const blocks = [{ name: "pc.ram", byteLength: 512 << 20, pageSize: 4096 }];
export const offer: Offer = {
  protocolVersions: [2, 1],
  migrationId: "m",
  token: new Uint8Array(16),
  sourceAddress: "alpha:7411",
  guest: {
    name: "web",
    definitionDigest: "d".repeat(64),
    machineType: "pc-q35-8.1",
    qemuVersion: { major: 10, minor: 0, micro: 2 },
    cpuModel: "qemu64-x86_64-cpu",
    cpuFeatures: { "1:edx": 0x0f },
    ramBlocks: blocks,
    paused: false,
  },
  transfer: {
    codecs: ["xbzrle", "zstd"],
    downtimeTargetMs: 300,
    deadlineMs: 0,
    onDeadline: "cancel",
    frameBytes: 262_144,
    creditWindowBytes: 16 << 20,
    verify: false,
    strategies: ["precopy"],
    strategy: "precopy",
    postcopyMayFollow: false,
  },
  dryRun: false,
  measureLink: false,
  saysKept: true,
};
const { name: _name, definitionDigest, ...facts } = offer.guest;
export const guest = facts;
export const host: DestinationFacts = {
  protocolVersions: [2, 1],
  definitionDigest,
  guest,
  freeMemoryBytes: 4 * 2 ** 30,
  promisedBytes: 0,
  reserveBytes: 256 << 20,
  definedBytes: 0,
  codecs: ["xbzrle", "zstd"],
  frameBytesMax: 1 << 20,
  creditWindowBytesMax: 8 << 20,
  followUpMs: 30_000,
  refusals: [],
};
/** What a destination answers that has the same guest as the source. @param found what is different there */
export const alike =
  (found: Partial<DestinationFacts> = {}) =>
  (asked: Offer): Agreement => {
    const { name: _, definitionDigest: digest, ...theirs } = asked.guest;
    return agree(asked, { ...host, definitionDigest: digest, guest: theirs, ...found });
  };
/** The codes of the reasons for which a destination refuses an offer; empty if the offer is accepted. */
export const codes = (mine: DestinationFacts, asked: Offer = offer): readonly string[] => {
  const agreement = agree(asked, mine);
  return agreement.kind === "contract" ? [] : agreement.refusals.map((one) => one.code);
};
