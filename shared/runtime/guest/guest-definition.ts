/**
 * Reads the definition of a guest: NAME.json in `guests.directory`, which both hosts have alike.
 *
 *     {"name": "web", "qmp": "{runtime}/web.qmp",
 *      "command": ["qemu-system-x86_64", "-qmp", "unix:{runtime}/web.qmp,server,wait=off", …]}
 *
 * `{runtime}` stands for this host's runtimeDirectory, and `{guest}` for the directory that the guest has for itself on
 * this host (shared/guest-directory.ts). The digest of a definition is made before these are filled in, and of the
 * canonical form, so that neither another directory nor another layout of the file makes two definitions differ. The
 * digest leaves out `peers`, which says whom this host trusts with the guest and differs from host to host.
 */
import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { dirname, isAbsolute, join } from "node:path";
import { MigrationFault } from "../../fault.ts";
import { guestDirectory } from "../../guest-directory.ts";
import { socketPathMistake } from "../../socket-path.ts";
import { readSmallFile } from "../files/small-file.ts";
import { optionMistakes } from "./qemu-options.ts";

export interface GuestDefinition {
  readonly name: string;
  /** The path of the socket of the guest's monitor on this host. */
  readonly qmp: string;
  /**
   * The directory in which the agents and this QEMU meet on this host: `{guest}` when the monitor's socket is in it,
   * otherwise runtimeDirectory.
   */
  readonly directory: string;
  /** The command line of the guest's QEMU on this host, without -incoming and -S. */
  readonly command: readonly [program: string, ...rest: string[]];
  /**
   * The names, as in their certificates, of the peers that may bring this guest here or take it from here. Missing
   * where every peer of tls.peers may.
   */
  readonly peers?: readonly string[];
  /** SHA-256 of the canonical JSON, without `peers` and before anything is filled in; hexadecimal. */
  readonly digest: string;
}

export interface GuestPlaces {
  readonly guestsDirectory: string;
  readonly runtimeDirectory: string;
}

export type GuestListing =
  | { readonly kind: "guest"; readonly definition: GuestDefinition }
  | { readonly kind: "unreadable"; readonly name: string; readonly fault: MigrationFault };

const NAME = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/;
export const isGuestName = (name: string): boolean => NAME.test(name);
const KEYS = ["name", "qmp", "command", "peers"];
/** The longest definition that is read, bytes. */
const FILE_BYTES_MAX = 1 << 20;
/** The longest name of a socket that an agent makes a QEMU open in `{guest}`: ID.monitor-2. */
const LONGEST_FILE = `${"0".repeat(12)}.monitor-2`;
/** A DNS name or an IP address, as a certificate has it. */
const PEER = /^[A-Za-z0-9._:-]{1,253}$/;

/** The first digits of a digest, which are what people compare. */
export const shortDigest = (digest: string): string => digest.slice(0, 12);

/**
 * Reads the definition of a guest.
 * @throws MigrationFault `invalid-argument` for what cannot be a guest's name, `guest-unknown` when the file cannot be
 *   read, `configuration` when the definition cannot be used
 */
export async function loadGuest(name: string, places: GuestPlaces): Promise<GuestDefinition> {
  if (!isGuestName(name))
    throw new MigrationFault("invalid-argument", `${JSON.stringify(name)} cannot be a guest's name`);
  const file = join(places.guestsDirectory, `${name}.json`);
  let text: string;
  try {
    text = await readSmallFile(file, FILE_BYTES_MAX);
  } catch (thrown) {
    if (thrown instanceof MigrationFault) throw unusable(file, thrown.message);
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new MigrationFault("guest-unknown", `No definition of guest ${name}: ${reason}`, {
      cause: thrown,
      advice: `Put the guest's definition into ${file}, readable for the agent's user`,
    });
  }
  return parseGuest(name, file, text, places.runtimeDirectory);
}

/**
 * Reads every NAME.json, sorted by name. A definition that cannot be used does not hide the others.
 * @throws MigrationFault `configuration` when the directory cannot be read
 */
export async function listGuests(places: GuestPlaces): Promise<readonly GuestListing[]> {
  let files: string[];
  try {
    files = await readdir(places.guestsDirectory);
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new MigrationFault("configuration", `Cannot list guests.directory: ${reason}`, {
      cause: thrown,
      advice: `Make ${places.guestsDirectory} readable for the agent's user, or set guests.directory`,
    });
  }
  const names = files.filter((file) => file.endsWith(".json")).map((file) => file.slice(0, -".json".length));
  const listing: GuestListing[] = [];
  for (const name of names.sort())
    try {
      listing.push({ kind: "guest", definition: await loadGuest(name, places) });
    } catch (thrown) {
      listing.push({ kind: "unreadable", name, fault: MigrationFault.from(thrown, "configuration") });
    }
  return listing;
}

/**
 * Reads the text of a definition. Exported for its tests.
 * @throws MigrationFault `configuration`, with every mistake at once
 */
export function parseGuest(name: string, file: string, text: string, runtimeDirectory: string): GuestDefinition {
  const given = parseObject(file, text);
  const mistakes: string[] = [];
  for (const key of Object.keys(given)) if (!KEYS.includes(key)) mistakes.push(`"${key}" is not a key of a guest`);
  if (given.name !== name) mistakes.push(`"name" must be ${JSON.stringify(name)}, as the file is called`);
  const own = guestDirectory(name, runtimeDirectory);
  const here = (template: string): string =>
    template.replaceAll("{runtime}", () => runtimeDirectory).replaceAll("{guest}", () => own);
  const qmp = typeof given.qmp === "string" ? here(given.qmp) : "";
  if (qmp === "") mistakes.push(`"qmp" must be the path of the guest's QMP socket`);
  else if (qmp.includes("\0")) mistakes.push(`"qmp" must not hold a zero byte`);
  else if (!isAbsolute(qmp))
    mistakes.push(`"qmp" must be an absolute path or begin with {guest} or {runtime}, not ${qmp}`);
  else if (socketPathMistake(qmp) !== undefined) mistakes.push(`"qmp" ${socketPathMistake(qmp)}`);
  const isOwn = qmp !== "" && dirname(qmp) === own;
  const longest = join(own, LONGEST_FILE);
  if (isOwn && socketPathMistake(longest) !== undefined)
    mistakes.push(`{guest} is too long for the agents' sockets: ${longest} ${socketPathMistake(longest)}`);
  const template = strings(given.command);
  mistakes.push(...commandMistakes(template));
  const command = (template ?? []).map(here);
  mistakes.push(...optionMistakes(command, qmp));
  const peers = given.peers === undefined ? undefined : strings(given.peers);
  if (given.peers !== undefined && !(peers?.every((peer) => PEER.test(peer)) ?? false))
    mistakes.push(`"peers" must be a list of DNS names and IP addresses, as the certificates of the peers have them`);
  const [program, ...rest] = command;
  if (program === undefined || mistakes.length > 0) throw unusable(file, mistakes.join("; "));
  const digest = createHash("sha256")
    .update(canonicalJson({ name, qmp: given.qmp, command: template }))
    .digest("hex");
  const directory = isOwn ? own : runtimeDirectory;
  const bound = peers === undefined ? {} : { peers: Object.freeze(peers) };
  return Object.freeze({ name, qmp, directory, command: Object.freeze([program, ...rest] as const), ...bound, digest });
}

function commandMistakes(command: readonly string[] | undefined): string[] {
  if (command === undefined || command.length === 0 || command[0] === "")
    return [`"command" must be QEMU's command line, a list of strings that is not empty`];
  if (command.some((word) => word.includes("\0"))) return [`"command" must not hold a zero byte`];
  return [];
}

function parseObject(file: string, text: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (thrown) {
    throw unusable(file, thrown instanceof Error ? thrown.message : String(thrown));
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw unusable(file, "not a JSON object");
  return Object.fromEntries(Object.entries(value));
}

const unusable = (file: string, why: string): MigrationFault =>
  new MigrationFault("configuration", `The guest definition ${file} cannot be used: ${why}`, {
    advice: `Mend the file, on both hosts alike; it holds {"name", "qmp", "command"}, and "peers" where only some may move it`,
  });

function strings(value: unknown): readonly string[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const texts = value.filter((one): one is string => typeof one === "string");
  return texts.length === value.length ? texts : undefined;
}

/** Writes an object with its keys in the order of their code units, and without spaces. */
function canonicalJson(value: Readonly<Record<string, unknown>>): string {
  const sorted = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify(Object.fromEntries(sorted));
}
