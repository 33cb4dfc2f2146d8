/**
 * Makes protobuf of every message of the protocol, as somebody writes it who knows the protocol and means harm. Each
 * value is of its type, and often at a limit or beyond it. Now and then a field is missing, said twice, or of another
 * type.
 */
import fc from "fast-check";
import { type Field, findType, type MessageType } from "./protocol-descriptors.ts";

const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;

/** Lengths of lists, beside lists of up to three entries: some are longer than a reader takes. */
const MANY = [65, 1025, 4097] as const;
/** The most bytes that the entries of one list may take: no agent reads a message that is longer. */
const MESSAGE_BYTES_MAX = 256 << 10;

/** Encodes a number as protobuf's varint. */
function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, value);
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Buffer.from(bytes);
}

const tag = (field: number, wireType: number): Buffer => varint(BigInt(field * 8 + wireType));

/** Encodes a field that has its length ahead of its content: text, bytes, or a message. */
const framed = (field: number, content: Uint8Array): Buffer =>
  Buffer.concat([tag(field, LENGTH), varint(BigInt(content.length)), content]);

const WHOLE = [0n, 255n, 4096n, 65_536n, 1n << 31n, (1n << 32n) - 1n, (1n << 53n) - 1n, 1n << 53n];
const BEYOND = [(1n << 63n) - 1n, 1n << 63n, (1n << 64n) - 1n];
const wholes = fc.oneof(fc.constantFrom(...WHOLE, ...BEYOND), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }));
const doubles = fc.oneof(fc.constantFrom(0, -0, 1.5, -1, 1e308, Number.NaN, Number.POSITIVE_INFINITY), fc.double());
/** Good values for each field whose text has to be one of a few, so that most messages get past such fields. */
const FITTING: Readonly<Record<string, readonly string[]>> = {
  ask: ["standing", "grant", "withdraw"],
  standing: ["waiting", "running", "refused", "unknown"],
  keep: ["source", "destination"],
  strategy: ["", "precopy", "hybrid"],
  strategies: ["precopy", "postcopy", "later"],
  recommended: ["precopy"],
  onDeadline: ["cancel", "force"],
  deadlineAction: ["", "postcopy"],
  codecs: ["zstd", "xbzrle", "later"],
  compression: ["", "auto", "off", "3"],
  content: ["0123456789abcdef0123456789abcdef"],
};
const FITTING_NAMES: Readonly<Record<string, readonly string[]>> = { DiskMark: [".ferry-m-1"] };
const PLAIN = ["web", "m-1", "127.0.0.1:7411", "pc.ram"];
const texts = fc.oneof(
  {
    weight: 2,
    arbitrary: fc
      .constantFrom(
        ...[
          "",
          "\0",
          "../../etc/passwd",
          "\u001b[2J\u001b]0;x\u0007",
          "__proto__",
          "constructor",
          "\u202e",
          "%s%n",
          "\n{",
        ],
      )
      .map((text) => Buffer.from(text)),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(64, 65, 256, 257, 300, 301, 2001, 4097, 65_536).map((n) => Buffer.alloc(n, "x")),
  },
  // bytes that are no UTF-8: half of a character, a surrogate, a byte that never occurs, a code point that is too large
  { weight: 1, arbitrary: fc.constantFrom("c3", "eda080", "ff", "f4908080").map((hex) => Buffer.from(hex, "hex")) },
);
const contents = fc.constantFrom(0, 1, 8, 15, 16, 17, 64, 65, 4096, 65_536).map((length) => Buffer.alloc(length, 7));

/**
 * How many values of a field there are for each hostile one. Most mild messages are read to their end, and no wild
 * message of any length is.
 */
export const MILD = 200;
export const WILD = 4;

const orHostile = <T>(fitting: readonly T[], hostile: fc.Arbitrary<T>, fits: number): fc.Arbitrary<T> =>
  fc.oneof({ weight: fits, arbitrary: fc.constantFrom(...fitting) }, { weight: 1, arbitrary: hostile });
const SMALL = [0n, 1n, 2n, 3n, 16n];

function scalar({ number, name, type }: Field, within: MessageType, fits: number): fc.Arbitrary<Buffer> {
  const words = (name === "name" ? FITTING_NAMES[within.name] : FITTING[name]) ?? PLAIN;
  const numbers = orHostile(SMALL, wholes, fits);
  switch (type) {
    case "TYPE_STRING":
      return orHostile(
        words.map((word) => Buffer.from(word)),
        texts,
        fits,
      ).map((text) => framed(number, text));
    case "TYPE_BYTES":
      return orHostile([Buffer.alloc(16, 7)], contents, fits).map((bytes) => framed(number, bytes));
    case "TYPE_DOUBLE":
      return orHostile([0, 0.25, 3], doubles, fits).map((value) => {
        const bytes = Buffer.alloc(8);
        bytes.writeDoubleLE(value);
        return Buffer.concat([tag(number, FIXED64), bytes]);
      });
    case "TYPE_FIXED64":
      return numbers.map((value) => {
        const bytes = Buffer.alloc(8);
        bytes.writeBigUInt64LE(value);
        return Buffer.concat([tag(number, FIXED64), bytes]);
      });
    case "TYPE_BOOL":
    case "TYPE_ENUM":
    case "TYPE_UINT32":
    case "TYPE_UINT64":
    case "TYPE_INT32":
    case "TYPE_INT64":
      return numbers.map((value) => Buffer.concat([tag(number, VARINT), varint(value)]));
    default:
      // a type that is new in the protocol needs hostile values here before it is fuzzed
      throw new TypeError(`no hostile values of ${type}`);
  }
}

/** How many bytes follow the tag of an empty field, by its wire type. */
const REST: ReadonlyMap<number, number> = new Map([
  [VARINT, 1],
  [FIXED64, 8],
  [LENGTH, 1],
  [FIXED32, 4],
]);

/** A field of any wire type where this field belongs. */
const anotherType = ({ number }: Field): fc.Arbitrary<Buffer> =>
  fc.constantFrom(VARINT, FIXED64, LENGTH, 3, 4, FIXED32).map((wireType) => {
    return Buffer.concat([tag(number, wireType), Buffer.alloc(REST.get(wireType) ?? 0)]);
  });

function fieldBytes(field: Field, within: MessageType, fits: number): fc.Arbitrary<Buffer> {
  const inner = field.type === "TYPE_MESSAGE" ? findType(field.typeName, within) : undefined;
  const one =
    inner === undefined
      ? scalar(field, within, fits)
      : messageBytes(inner, fits).map((bytes) => framed(field.number, bytes));
  const times =
    field.label === "LABEL_REPEATED"
      ? fc.oneof(
          { weight: 2 * fits, arbitrary: fc.array(one, { maxLength: 3 }).map((all) => Buffer.concat(all)) },
          { weight: 1, arbitrary: fc.tuple(one, fc.constantFrom(...MANY)).map(([bytes, count]) => many(bytes, count)) },
        )
      : one;
  return fc.oneof({ weight: 2 * fits, arbitrary: times }, { weight: 1, arbitrary: anotherType(field) });
}

/** Repeats an entry `count` times, or as often as MESSAGE_BYTES_MAX has room for. */
const many = (bytes: Buffer, count: number): Buffer =>
  Buffer.concat(new Array(Math.min(count, Math.floor(MESSAGE_BYTES_MAX / Math.max(1, bytes.length)))).fill(bytes));

const NOTHING = Buffer.alloc(0);
const known = new Map<string, fc.Arbitrary<Buffer>>();

/**
 * Well-formed messages of a type with hostile values in them. Now and then a field is missing, or is said twice.
 * @param fits MILD or WILD
 */
export function messageBytes(type: MessageType, fits: number): fc.Arbitrary<Buffer> {
  const key = `${type.name} ${fits}`;
  const before = known.get(key);
  if (before !== undefined) return before;
  const fields = type.fields.map((field) => fieldBytes(field, type, fits));
  const each = fields.map((field) =>
    fc.oneof({ weight: 2 * fits, arbitrary: field }, { weight: 1, arbitrary: fc.constant(NOTHING) }),
  );
  const twice = fields.length === 0 ? fc.constant(NOTHING) : fc.oneof(...fields);
  const made = fc
    .tuple(
      fc.tuple(...each),
      fc.oneof({ weight: fits, arbitrary: fc.constant(NOTHING) }, { weight: 1, arbitrary: twice }),
    )
    .map(([parts, again]) => Buffer.concat([...parts, again]));
  known.set(key, made);
  return made;
}

/**
 * Messages with one field alone. Of a oneof the last field counts, so messageBytes() would hardly ever show the first.
 */
export const oneFieldAlone = (type: MessageType, fits: number): fc.Arbitrary<Buffer> =>
  type.fields.length === 0
    ? fc.constant(NOTHING)
    : fc.oneof(...type.fields.map((field) => fieldBytes(field, type, fits)));

/** A field somewhere in a message, and the numbers of the fields that lead to it. */
export interface Place {
  readonly name: string;
  readonly path: readonly number[];
}

/**
 * Finds every place in a message of this type, at any depth, where entries may be said again and again: its lists, and
 * its other fields too.
 */
export function lists(type: MessageType): readonly Place[] {
  return type.fields.flatMap((field): readonly Place[] => {
    const here = { name: field.name, path: [field.number] };
    const inner = field.type === "TYPE_MESSAGE" ? findType(field.typeName, type) : undefined;
    if (inner === undefined) return [here];
    const within = lists(inner).map(({ name, path }) => ({
      name: `${field.name}.${name}`,
      path: [field.number, ...path],
    }));
    return [here, ...within];
  });
}

/** Makes a message of this length that has nothing but empty entries of one list: two bytes make an object. */
export function fullOf({ path }: Place, byteLength: number): Buffer {
  const [innermost = 1, ...outer] = [...path].reverse();
  const entry = framed(innermost, NOTHING);
  const entries = Buffer.alloc(byteLength - (byteLength % entry.length), entry);
  return outer.reduce((made: Buffer, field) => framed(field, made), entries);
}
