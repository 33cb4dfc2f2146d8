/** The readers of each message of each call, and how large a value each reader may make of a message. */
import { MigrationFault } from "../../shared/fault.ts";
import { destinationService, migrationService, transferService } from "../../shared/link/grpc/services.ts";
import { type MessageType, rpcs } from "./protocol-descriptors.ts";

/** Bounds of what a reader gives: the longest text, characters, and the longest list. */
interface Bounds {
  readonly text: number;
  readonly list: number;
}

/**
 * The bounds of an answer to an operator. It comes from an agent that is trusted, so it may be as long as its message.
 */
const AS_LONG_AS_IT_IS: Bounds = { text: Number.POSITIVE_INFINITY, list: Number.POSITIVE_INFINITY };
/** The bounds of what an operator says: a guest's name, an id or an address. */
const OPERATORS: Bounds = { text: 300, list: 0 };
/**
 * The bounds of an offer: names of devices and images have up to 4096 characters, and there are up to 100 000 settings
 * (shared/link/wire/wire-guest.ts).
 */
const OFFER: Bounds = { text: 4096, list: 100_000 };
/**
 * The bounds of what a peer says: its reasons and texts (SAID_CHARACTERS_MAX), and the 4096 blocks of a layout
 * (RAM_BLOCKS_MAX in shared/units.ts).
 */
const PEERS: Bounds = { text: 2000, list: 4096 };

type Both = { readonly request: Bounds; readonly response: Bounds };
const asked = (request: Bounds): Both => ({ request, response: AS_LONG_AS_IT_IS });

/** The bounds of every call. A new call does not compile without its own. */
const BOUNDS: {
  readonly MigrationService: { readonly [Name in keyof typeof migrationService]: Both };
  readonly DestinationService: { readonly [Name in keyof typeof destinationService]: Both };
  readonly TransferService: { readonly [Name in keyof typeof transferService]: Both };
} = {
  MigrationService: {
    ListGuests: asked(OPERATORS),
    Plan: asked(OPERATORS),
    Migrate: asked(OPERATORS),
    GetMigration: asked(OPERATORS),
    ListMigrations: asked(OPERATORS),
    WatchMigration: asked(OPERATORS),
    CancelMigration: asked(OPERATORS),
    GetHeatMap: asked(OPERATORS),
    ResolveMigration: asked(OPERATORS),
  },
  DestinationService: {
    Handshake: { request: OFFER, response: PEERS },
    Settle: { request: { text: 64, list: 0 }, response: PEERS },
  },
  TransferService: { Transfer: { request: PEERS, response: PEERS } },
};

const SERVICES: Readonly<Record<string, object>> = {
  MigrationService: migrationService,
  DestinationService: destinationService,
  TransferService: transferService,
};

export interface Reader {
  /** For example "DestinationService.Settle request". */
  readonly name: string;
  readonly type: MessageType;
  readonly bounds: Bounds;
  /** The code of the fault for a message that is not valid. */
  readonly code: "peer-invalid" | "invalid-argument";
  read(bytes: Buffer): unknown;
}

interface Method {
  readonly requestDeserialize: Reader["read"];
  readonly responseDeserialize: Reader["read"];
}

/** All readers, found by the names in the protocol. A call of the protocol that nothing reads is a TypeError. */
export const readers: readonly Reader[] = rpcs().flatMap(({ service, name, request, response }): readonly Reader[] => {
  const method = entry<Method>(SERVICES[service], name, service);
  const bounds = entry<Both>(entry<object>(BOUNDS, service, "the bounds"), name, service);
  const code = service === "MigrationService" ? "invalid-argument" : "peer-invalid";
  return [
    {
      name: `${service}.${name} request`,
      type: request,
      bounds: bounds.request,
      code,
      read: method.requestDeserialize,
    },
    {
      name: `${service}.${name} response`,
      type: response,
      bounds: bounds.response,
      code: "peer-invalid",
      read: method.responseDeserialize,
    },
  ];
});

function entry<Found>(of: object | undefined, name: string, where: string): Found {
  const found: Found | undefined = Object.entries(of ?? {}).find(([key]) => key === name)?.[1];
  if (found === undefined) throw new TypeError(`${name} is in the protocol, and not in ${where}`);
  return found;
}

/** How many values a byte may make: an empty message of two bytes is an object with all of its fields. */
const VALUES_A_BYTE = 16;
/**
 * How many values a message may make beside those: a view of a migration has so many fields, however short its message
 * is.
 */
const VALUES_BESIDE = 400;

/** Reads a message, and checks what came of it. */
export function readWithin({ name, read, bounds, code }: Reader, bytes: Buffer): unknown {
  const got = read(bytes);
  if (got instanceof MigrationFault) {
    if (got.code !== code) throw new Error(`${name}: ${got.code}, not ${code}: ${got.message}`, { cause: got });
    const { cause } = got;
    // this is a mistake of our own code that receive() took for the peer's
    if (cause instanceof RangeError && !/index out of range|invalid wire type|offset|max depth/i.test(cause.message))
      throw cause;
    if (cause instanceof TypeError && !("code" in cause)) throw cause;
    if (got.message.length > 5000) throw new Error(`${name}: a message of ${got.message.length} characters`);
    return got;
  }
  const left = { values: VALUES_BESIDE + VALUES_A_BYTE * bytes.length, name, bounds };
  look(got, left);
  return got;
}

function look(value: unknown, left: { values: number; readonly name: string; readonly bounds: Bounds }): void {
  const { name, bounds } = left;
  if (--left.values < 0) throw new Error(`${name}: more values than its message can have`);
  if (typeof value === "number" && !Number.isFinite(value)) throw new Error(`${name}: the number ${value}`);
  if (typeof value === "string" && value.length > bounds.text)
    throw new Error(`${name}: a text of ${value.length} characters, at most ${bounds.text}`);
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return;
  if (Array.isArray(value) && value.length > bounds.list)
    throw new Error(`${name}: a list of ${value.length}, at most ${bounds.list}`);
  for (const [key, inner] of Object.entries(value)) {
    look(key, left);
    look(inner, left);
  }
}
