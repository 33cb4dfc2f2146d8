/**
 * What a log takes of texts: so many characters, and none that a terminal acts on. Values come from peers, guests and
 * QEMU; where each of them is bounded is their readers' business, and this is behind them all.
 */

/** Of one text, characters. The longest of our own, a refusal with its reasons, stay below. */
const TEXT_MAX = 4000;
/** Of all texts of a line, characters. */
const LINE_MAX = 32_000;
/** Of a list or an object, members. */
const MEMBERS_MAX = 200;
const DEPTH_MAX = 8;

/**
 * JSON escapes what is below U+0020. Left are DEL, the controls of U+0080 to U+009F, which some terminals obey, line
 * separators, and the marks that turn the direction of writing or cannot be seen.
 */
const SIGNS = /[\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** A line of JSON with all such signs escaped: it says the same. */
export const withoutSigns = (line: string): string =>
  line.replace(SIGNS, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);

export const cutText = (text: string): string =>
  text.length <= TEXT_MAX ? text : `${text.slice(0, TEXT_MAX)} … (${text.length} characters)`;

/**
 * The same fields with their texts, lists and depth bounded. What is not plain, such as a fault, is returned as it is:
 * a serialiser makes fields of it, and bounds them.
 */
export const boundedFields = (fields: object): Record<string, unknown> => fieldsOf(fields, { left: LINE_MAX }, 0);

interface Line {
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
