/**
 * Bounds how many entries a message of a peer may have, before protobufjs makes an object of each of them: 256 KiB of
 * empty entries would be 130 000 objects. The check makes no object, and its time grows with the length of the message.
 *
 * Not its job: how many entries each list may have, and what is in them (wire-read.ts).
 */
import { join } from "node:path";
import protobuf from "protobufjs";
import { MigrationFault } from "../../fault.ts";
import { packageRoot } from "../../runtime/package-root.ts";

/**
 * The most fields that a message may have, with those of the messages in it. The largest honest messages are the offer
 * of a guest with many devices, and a layout of RAM_BLOCKS_MAX blocks.
 */
const ENTRIES_MAX = 32_768;
/** The longest message that is not checked, bytes. Each entry takes a byte at least, so it has at most 4096 of them. */
const SMALL_BYTES = 4096;
/** The wire type of a text, of bytes, and of a message (protobuf.dev/programming-guides/encoding). */
const LENGTH_DELIMITED = 2;

let root: protobuf.Root | undefined;

/** Loads the message types when the first message is checked that is not small. Few agents ever get such a message. */
function typesOfProtocol(): protobuf.Root {
  if (root !== undefined) return root;
  const loaded = new protobuf.Root();
  loaded.resolvePath = (_, target) => join(packageRoot(), "proto", target);
  loaded.loadSync(["ferry/v1/operator.proto", "ferry/v1/peer.proto"]).resolveAll();
  root = loaded;
  return loaded;
}

/**
 * Checks a message before it is decoded.
 * @param type the name of the message's type, in ferry.v1
 * @throws MigrationFault `peer-invalid` when there are too many entries; and an error of protobufjs for bytes that are
 *   no protobuf
 */
export function checkEntries(bytes: Uint8Array, type: string): void {
  if (bytes.length <= SMALL_BYTES) return;
  const left = { entries: ENTRIES_MAX };
  walk(protobuf.Reader.create(bytes), bytes.length, typesOfProtocol().lookupType(`ferry.v1.${type}`), left);
}

/** The wire types of numbers, texts and bytes. */
const BASIC: ReadonlyMap<string, number> = new Map(Object.entries(protobuf.types.basic));

/** Gives the wire type of one value of the field. An enum is a varint. */
const wireTypeOf = ({ map, resolvedType, type }: protobuf.Field): number =>
  map || resolvedType instanceof protobuf.Type ? LENGTH_DELIMITED : (BASIC.get(type) ?? 0);

function spend(left: { entries: number }, entries: number): void {
  left.entries -= entries;
  if (left.entries < 0)
    throw new MigrationFault("peer-invalid", `The peer's message has more than ${ENTRIES_MAX} entries`);
}

function walk(reader: protobuf.Reader, end: number, type: protobuf.Type, left: { entries: number }): void {
  while (reader.pos < end) {
    spend(left, 1);
    const tag = reader.uint32();
    const wire = tag & 7;
    const field = type.fieldsById[tag >>> 3];
    const inner = field?.resolvedType;
    // protobufjs decodes a known field by its type, whatever wire type the message gives it
    if (field !== undefined && wire !== wireTypeOf(field) && !(field.repeated && wire === LENGTH_DELIMITED))
      throw new MigrationFault("peer-invalid", `The peer's message has its field ${field.name} in another form`);
    if (inner instanceof protobuf.Type) walk(reader, reader.uint32() + reader.pos, inner, left);
    else if (wire === LENGTH_DELIMITED && field !== undefined && wireTypeOf(field) !== wire) {
      // packed numbers, each of which takes a byte at least
      const length = reader.uint32();
      spend(left, length);
      reader.skip(length);
    } else reader.skipType(wire);
  }
}
