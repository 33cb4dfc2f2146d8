/**
 * The formats in which values of the configuration are written. config-schema.ts names them; the library convict
 * converts and checks values by them.
 */
import { MigrationFault } from "../../fault.ts";
import { parseByteSize, parseDuration } from "../../quantities.ts";
import { LOG_LEVELS } from "../log/log.ts";
import type { Format } from "./config-schema.ts";

interface ValueFormat {
  /**
   * Converts a text of the environment or the command line. A text that it cannot convert is returned as it is, and
   * refused by validate().
   */
  coerce(text: string): unknown;
  /** @throws MigrationFault `configuration` for a value that does not have this format */
  validate(value: unknown): void;
}

const asItIs = (text: string): unknown => text;

const refuse = (message: string): MigrationFault => new MigrationFault("configuration", message);

export const FORMATS: Readonly<Record<Format, ValueFormat>> = {
  "ferry-duration": { coerce: asItIs, validate: quantity(parseDuration, `"10s"`) },
  "ferry-size": { coerce: asItIs, validate: quantity(parseByteSize, `"256MiB"`) },
  "ferry-count": {
    coerce: (text) => (/^\d{1,9}$/.test(text) ? Number(text) : text),
    validate: (value) => {
      if (typeof value !== "number" || !Number.isInteger(value) || value < 0)
        throw refuse("must be a whole number from 0 on");
    },
  },
  "ferry-boolean": {
    coerce: (text) => (text === "true" ? true : text === "false" ? false : text),
    validate: (value) => {
      if (typeof value !== "boolean") throw refuse("must be true or false");
    },
  },
  "ferry-text": {
    coerce: asItIs,
    validate: (value) => {
      if (typeof value !== "string") throw refuse("must be a text");
    },
  },
  "ferry-list": {
    coerce: (text) =>
      text
        .split(",")
        .map((one) => one.trim())
        .filter((one) => one !== ""),
    validate: (value) => {
      if (!Array.isArray(value) || value.some((one) => typeof one !== "string"))
        throw refuse("must be a list of texts, or one text with commas");
    },
  },
  "ferry-log-level": {
    coerce: asItIs,
    validate: (value) => {
      if (!LOG_LEVELS.some((level) => level === value)) throw refuse(`must be one of ${LOG_LEVELS.join(", ")}`);
    },
  },
};

/**
 * Makes the check of a number with its unit. convict keeps only the message of a fault, so the check appends the advice
 * to the message.
 * @param parse throws a fault for a text that it cannot read
 * @param example a valid text in quotation marks, for the message
 */
function quantity(parse: (text: string) => number, example: string): (value: unknown) => void {
  return (value) => {
    if (typeof value !== "string") throw refuse(`must be a text with its unit, as ${example}`);
    try {
      parse(value);
    } catch (thrown) {
      const fault = MigrationFault.from(thrown);
      throw refuse(fault.advice === undefined ? fault.message : `${fault.message}. ${fault.advice}`);
    }
  };
}
