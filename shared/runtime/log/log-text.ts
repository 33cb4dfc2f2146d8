/**
 * Bounds the texts of a line of the log, and escapes the characters on which a terminal acts. Values come from peers,
 * guests and QEMU. The code that reads a value bounds it; the bounds here hold for every value, also where that code
 * forgot one.
 */

/** The most characters of one text. The longest texts that Ferry makes, refusals with their reasons, are shorter. */
const TEXT_MAX = 4000;
/** The most characters of all texts of a line. */
const LINE_MAX = 32_000;
/** The most members of a list or an object. */
const MEMBERS_MAX = 200;
/** How deep lists and objects may be nested. */
const DEPTH_MAX = 8;

/**
 * The characters that are escaped here. JSON itself escapes everything below U+0020. What remains are DEL, the control
 * characters U+0080 to U+009F, which some terminals obey, line separators, and the marks that turn the direction of
 * writing or cannot be seen.
 */
const SIGNS = /[\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** Escapes the characters of SIGNS in a line of JSON. The line still means the same. */
export const withoutSigns = (line: string): string =>
  line.replace(SIGNS, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** Cuts a text that is too long, and appends how long it was. */
export const cutText = (text: string): string =>
  text.length <= TEXT_MAX ? text : `${text.slice(0, TEXT_MAX)} … (${text.length} characters)`;

/**
 * Copies fields with their texts, lists and depth bounded. An object of a class, such as a fault, is returned as it is:
 * a serialiser makes fields of it, and bounds these.
 */
export const boundedFields = (fields: object): Record<string, unknown> => fieldsOf(fields, { left: LINE_MAX }, 0);

interface Line {
  /** How many more characters the line may have. */
  left: number;
}

function fieldsOf(fields: object, line: Line, depth: number): Record<string, unknown> {
  const made: Record<string, unknown> = {};
  let members = 0;
  for (const [name, value] of Object.entries(fields)) {
    if (members++ === MEMBERS_MAX || line.left <= 0) {
      made["…"] = "cut";
      break;
    }
    made[textOf(name, line)] = shortened(value, line, depth);
  }
  return made;
}

function shortened(value: unknown, line: Line, depth: number): unknown {
  if (typeof value === "string") return textOf(value, line);
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return depth < DEPTH_MAX ? membersOf(value, line, depth + 1) : "…";
  if (Object.getPrototypeOf(value) !== Object.prototype) return value;
  return depth < DEPTH_MAX ? fieldsOf(value, line, depth + 1) : "…";
}

function membersOf(list: readonly unknown[], line: Line, depth: number): readonly unknown[] {
  const kept: unknown[] = [];
  for (const one of list) {
    if (kept.length === MEMBERS_MAX || line.left <= 0) return [...kept, `… (${list.length} members)`];
    kept.push(shortened(one, line, depth));
  }
  return kept;
}

function textOf(text: string, line: Line): string {
  const kept = text.length <= line.left ? cutText(text) : cutText(text.slice(0, Math.max(0, line.left)));
  line.left -= kept.length;
  return kept;
}
