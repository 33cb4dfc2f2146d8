/** How the values of the configuration are written: the formats that config-schema.ts names, for convict. */
import { MigrationFault } from "../../fault.ts";
import { parseByteSize, parseDuration } from "../../quantities.ts";
import { LOG_LEVELS } from "../log/log.ts";
import type { Format } from "./config-schema.ts";

interface ValueFormat {
  /** From the text of the environment or the command line; what it cannot read it leaves for validate(). */
  coerce(text: string): unknown;
  /** @throws MigrationFault configuration */
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

/** convict keeps the message only, so the advice goes into it. */
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
