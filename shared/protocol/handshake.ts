/**
 * The rules of the handshake, in one place for both agents: agree() compares what the source offers with what the
 * destination has found, and checkContract() checks the destination's answer at the source. This file sends nothing and
 * asks no QEMU.
 *
 * A refusal lists every reason at once, so that the operator can mend them in one go. The destination calls agree()
 * twice: first for all reasons that are known without a QEMU; then, if there were none, it starts a QEMU, and calls
 * agree() for all reasons that this QEMU shows.
 */
import { MigrationFault, type Refusal } from "../fault.ts";
import { compareSettings } from "./device-settings.ts";
import { compareDevices } from "./devices.ts";
import { compareDisks, type DiskVerdict } from "./disks.ts";
import type { Codec, Contract, Drive, GuestOffer, Offer, QemuVersion, RamBlock } from "./messages.ts";
import { agreeOnStrategies, beyondOffer, completeContract, noStrategy, postcopyObstacles } from "./strategies.ts";

/**
 * The protocol versions that this build speaks, newest first: its own and the one before. Version 1 has precopy and
 * stop-and-copy, and its handshake does not name strategies. In version 2 strategies are negotiated, post-copy is one
 * of them, and a guest may be granted paused.
 */
export const PROTOCOL_VERSIONS: readonly number[] = [2, 1];

/** The first version that knows of paused guests: an older destination would start every guest that it is granted. */
const PAUSED_SINCE = 2;

/** Tells whether a destination that speaks this version leaves a guest paused that was granted paused. */
export const canStayPaused = (protocolVersion: number): boolean => protocolVersion >= PAUSED_SINCE;

/** What a destination knows of the guest that is to come, from its own waiting QEMU. */
type OwnGuest = Omit<GuestOffer, "name" | "definitionDigest" | "paused" | "mark" | "disksUnchecked">;

/**
 * What the destination has found on its own host. A fact that it could not find out is missing, and a refusal says why.
 */
export interface DestinationFacts {
  readonly protocolVersions: readonly number[];
  /** The digest of the destination's own definition of the guest, where it has one. */
  readonly definitionDigest?: string;
  /** What the destination's own waiting QEMU says, where one could be started. */
  readonly guest?: OwnGuest;
  /** The paths of images of that QEMU beside which the source's mark was found (DiskMark in messages.ts). */
  readonly markedImages?: ReadonlySet<string>;
  /** Free memory of the host, less the memory that the guests accepted earlier have yet to take. */
  readonly freeMemoryBytes: number;
  /** Memory that the guests accepted earlier have yet to take. It is used only in the message of a refusal. */
  readonly promisedBytes: number;
  /** Memory that the host keeps for itself. */
  readonly reserveBytes: number;
  /** Memory of the guest by the destination's own definition; 0 where the definition does not say it. */
  readonly definedBytes: number;
  readonly codecs: readonly Codec[];
  readonly frameBytesMax: number;
  readonly creditWindowBytesMax: number;
  readonly followUpMs: number;
  /** Why the destination's QEMU cannot go into post-copy. It is found out only for an offer that asks for post-copy. */
  readonly postcopyRefusal?: Refusal;
  /** Reasons against the offer that were found while the facts were gathered. */
  readonly refusals: readonly Refusal[];
}

/** The outcome of agree(). */
export type Agreement =
  | { readonly kind: "contract"; readonly contract: Contract }
  | { readonly kind: "refusals"; readonly refusals: readonly Refusal[] };

/**
 * Compares an offer with what the destination has found. If the offer is for another definition of the guest, the
 * answer says nothing about the destination's guest, since the offer may come from a peer that only wants to learn
 * about it.
 * @returns a contract, or every reason against one. Without `found.guest` it is never a contract, but the reasons that
 *   are known without a QEMU, perhaps none
 */
export function agree(offer: Offer, found: DestinationFacts): Agreement {
  const isAlike = found.definitionDigest === undefined || found.definitionDigest === offer.guest.definitionDigest;
  const { guest: _, markedImages: _images, postcopyRefusal: _postcopy, ...ofTheHost } = found;
  const mine: DestinationFacts = isAlike ? found : { ...ofTheHost, definedBytes: 0 };
  const refusals: Refusal[] = [...mine.refusals];
  const refuse = (code: string, message: string): void => {
    refusals.push({ code, message });
  };
  const version = offer.protocolVersions.find((one) => mine.protocolVersions.includes(one));
  if (version === undefined)
    refuse(
      "protocol-version",
      `The source speaks protocol ${offer.protocolVersions.join(", ")}, the destination ${mine.protocolVersions.join(", ")}; bring both agents to versions that are at most one apart`,
    );
  if (!isAlike)
    refuse(
      "guest-definition",
      `The definitions of ${offer.guest.name} differ: compare ${offer.guest.name}.json in guests.directory of both hosts (column DEFINITION of "ferry guests" at the source agent of each), then copy one file over the other, but for "peers"`,
    );
  const obstacles = postcopyObstacles(offer, { ...mine, version });
  const agreed = agreeOnStrategies(offer, obstacles);
  if (agreed === undefined) refusals.push(...(obstacles.length > 0 ? obstacles : [noStrategy(offer)]));
  checkMemory(offer, mine, refuse);
  if (mine.guest !== undefined) checkGuest(offer.guest, mine.guest, refuse);
  const { refusals: different, warnings } = compareMade(offer.guest, mine);
  refusals.push(...different);
  if (version === undefined || mine.guest === undefined || agreed === undefined || refusals.length > 0)
    return { kind: "refusals", refusals };
  return {
    kind: "contract",
    contract: {
      protocolVersion: version,
      codecs: offer.transfer.codecs.filter((codec) => mine.codecs.includes(codec)),
      frameBytes: Math.min(offer.transfer.frameBytes, mine.frameBytesMax),
      creditWindowBytes: Math.min(offer.transfer.creditWindowBytes, mine.creditWindowBytesMax),
      destinationQemuVersion: mine.guest.qemuVersion,
      destinationFreeMemoryBytes: mine.freeMemoryBytes,
      followUpMs: mine.followUpMs,
      ramBlocks: mine.guest.ramBlocks,
      ...agreed,
      comparesDisks: true,
      warnings,
      measuresLink: false,
    },
  };
}

/**
 * Checks that an agent may begin one more migration.
 * @throws MigrationFault `busy` when it has as many as it may have
 */
export function checkMigrations(role: "source" | "destination", underWay: number, max: number): void {
  if (underWay < max) return;
  throw new MigrationFault("busy", `The ${role} has ${underWay} migrations under way (migrations.max)`, {
    role,
    advice: `Wait until one has ended, or raise migrations.max of the ${role} agent`,
  });
}

/**
 * The smallest frame size that a source takes in a contract, bytes; the least value of the setting transfer.frameBytes.
 */
const FRAME_BYTES_MIN = 16 << 10;

/**
 * Checks at the source what the destination has made of the offer. A contract may hold no more than was offered, so
 * that the source allocates no more by the contract than its own configuration allows.
 * @returns the contract, completed with what a destination of protocol 1 does not say
 * @throws MigrationFault `peer-invalid`; `refused` when the destination does not compare disks that the guest may write
 *   to, and the operator does not answer for them
 */
export function checkContract(offer: Offer, answered: Contract): Contract {
  const { transfer } = offer;
  const contract = completeContract(offer, answered);
  const wrong: string[] = [];
  if (!offer.protocolVersions.includes(contract.protocolVersion)) wrong.push(`protocol ${contract.protocolVersion}`);
  for (const codec of contract.codecs) if (!transfer.codecs.includes(codec)) wrong.push(`codec ${codec}`);
  wrong.push(...beyondOffer(offer, contract));
  const least = Math.min(FRAME_BYTES_MIN, transfer.frameBytes);
  if (contract.frameBytes < least || contract.frameBytes > transfer.frameBytes)
    wrong.push(`frames of ${contract.frameBytes} bytes, of ${transfer.frameBytes} that were offered`);
  if (contract.creditWindowBytes < 1 || contract.creditWindowBytes > transfer.creditWindowBytes)
    wrong.push(`a credit of ${contract.creditWindowBytes} bytes, of ${transfer.creditWindowBytes} that were offered`);
  if (!contract.comparesDisks && offer.guest.disksUnchecked !== true && offer.guest.disks?.drives.some(mayBeWritten))
    throw new MigrationFault("refused", OLD_DESTINATION, {
      role: "destination",
      refusals: [{ code: "disks-unproven", message: OLD_DESTINATION }],
      advice: "Mend what is listed, then migrate again",
    });
  const differing = describeBlocks(offer.guest.ramBlocks, contract.ramBlocks);
  if (differing !== "") wrong.push(`other RAM blocks: ${differing}`);
  if (wrong.length === 0) return contract;
  throw new MigrationFault("peer-invalid", `The destination accepted what was not offered: ${wrong.join("; ")}`, {
    role: "destination",
  });
}

const OLD_DESTINATION =
  "The destination agent is too old to tell whether it has the files of the guest's disks; upgrade it, or, where you know that both hosts have the same files, migrate with --shared-disks-unchecked";

const mayBeWritten = ({ layers }: Drive): boolean => layers.some(({ writable }) => writable);

/** Compares the devices, their settings and the disks of both QEMUs, as far as the source says them. */
function compareMade(theirs: GuestOffer, { guest: mine, markedImages = new Set() }: DestinationFacts): DiskVerdict {
  if (mine?.devices === undefined || mine.disks === undefined) return { refusals: [], warnings: [] };
  // another machine type or CPU model has other devices; checkGuest() has refused the guest for it already
  const isOther = theirs.machineType !== mine.machineType || theirs.cpuModel !== mine.cpuModel;
  const refusal =
    theirs.devices === undefined || isOther
      ? undefined
      : compareDevices({ ...theirs, devices: theirs.devices }, { ...mine, devices: mine.devices });
  const set =
    refusal !== undefined || theirs.deviceSettings === undefined || mine.deviceSettings === undefined || isOther
      ? undefined
      : compareSettings({ ...theirs, settings: theirs.deviceSettings }, { ...mine, settings: mine.deviceSettings });
  const disks =
    theirs.disks === undefined
      ? { refusals: [], warnings: [] }
      : compareDisks(theirs.disks, mine.disks, { marked: markedImages, unchecked: theirs.disksUnchecked === true });
  const refusals = [refusal, set].filter((one) => one !== undefined);
  return { refusals: [...refusals, ...disks.refusals], warnings: disks.warnings };
}

type Refuse = (code: string, message: string) => void;

/**
 * Gives the memory that the guest will take, bytes: the sum of the RAM blocks that its source names, or what the
 * destination's own definition says, whichever is more.
 */
export const neededBytes = ({ guest }: Pick<Offer, "guest">, definedBytes: number): number =>
  Math.max(
    definedBytes,
    guest.ramBlocks.reduce((sum, block) => sum + block.byteLength, 0),
  );

function checkMemory(offer: Offer, mine: DestinationFacts, refuse: Refuse): void {
  const { freeMemoryBytes, promisedBytes, reserveBytes, definedBytes } = mine;
  const needed = neededBytes(offer, definedBytes);
  if (freeMemoryBytes - reserveBytes >= needed) return;
  const promised =
    promisedBytes === 0 ? "" : `, beside the ${mebibytes(promisedBytes)} that guests on their way to it will take,`;
  refuse(
    "free-memory",
    `The guest needs ${mebibytes(needed)} of memory; the destination has ${mebibytes(Math.max(0, freeMemoryBytes))} free${promised} and keeps ${mebibytes(reserveBytes)} for itself`,
  );
}

function checkGuest(theirs: GuestOffer, mine: OwnGuest, refuse: Refuse): void {
  if (theirs.machineType !== mine.machineType)
    refuse(
      "machine-type",
      `The guest's machine type is ${theirs.machineType}, the destination's QEMU made ${mine.machineType}; name a versioned machine type that both QEMUs know`,
    );
  if (theirs.qemuVersion.major > mine.qemuVersion.major + 1)
    refuse(
      "qemu-version",
      `The source runs QEMU ${versionText(theirs.qemuVersion)}, the destination ${versionText(mine.qemuVersion)}, more than one major version older; upgrade the destination's QEMU`,
    );
  if (theirs.cpuModel !== mine.cpuModel)
    refuse("cpu-model", `The guest's CPU model is ${theirs.cpuModel}, the destination's QEMU made ${mine.cpuModel}`);
  const missing = Object.entries(theirs.cpuFeatures).filter(
    ([word, bits]) => (bits & ~(mine.cpuFeatures[word] ?? 0)) !== 0,
  );
  if (missing.length > 0)
    refuse(
      "cpu-features",
      `The guest was shown CPU features that the destination lacks: ${missing.map(([word, bits]) => `${word} 0x${((bits & ~(mine.cpuFeatures[word] ?? 0)) >>> 0).toString(16)}`).join(", ")}; use a CPU model that both hosts have`,
    );
  const differing = describeBlocks(theirs.ramBlocks, mine.ramBlocks);
  if (differing !== "") refuse("ram-blocks", `The RAM blocks differ: ${differing}`);
}

/** The most differences that are named. Two lists that are of different guests may have thousands of them. */
const DIFFERENCES_NAMED = 8;

/** Says in words how two lists of RAM blocks differ. @returns the empty text where they do not differ */
export function describeBlocks(theirs: readonly RamBlock[], mine: readonly RamBlock[]): string {
  const [theirsByName, mineByName] = [byName(theirs), byName(mine)];
  const words: string[] = [];
  for (const block of theirs) {
    const own = mineByName.get(block.name);
    if (own === undefined) words.push(`${block.name} is missing at the destination`);
    else if (own.byteLength !== block.byteLength)
      words.push(`${block.name} has ${block.byteLength} bytes at the source and ${own.byteLength} at the destination`);
    else if (own.pageSize !== block.pageSize)
      words.push(
        `${block.name} has pages of ${block.pageSize} bytes at the source and ${own.pageSize} at the destination`,
      );
  }
  if (theirsByName.size < theirs.length) words.push("a block is listed twice at the source");
  if (mineByName.size < mine.length) words.push("a block is listed twice at the destination");
  for (const block of mine) if (!theirsByName.has(block.name)) words.push(`${block.name} is only at the destination`);
  const more = words.length - DIFFERENCES_NAMED;
  if (more > 0) words.splice(DIFFERENCES_NAMED, more, `and ${more} more`);
  return words.join("; ");
}

const byName = (blocks: readonly RamBlock[]): ReadonlyMap<string, RamBlock> =>
  new Map(blocks.map((block) => [block.name, block]));

export const versionText = (version: QemuVersion): string => `${version.major}.${version.minor}.${version.micro}`;

const mebibytes = (bytes: number): string => `${Math.floor(bytes / 2 ** 20)} MiB`;
