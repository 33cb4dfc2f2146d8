/** Describes the compiled protocol: its calls, and the fields of its messages. */
import { loadDefinition } from "../../shared/link/wire/proto-files.ts";

/** A field as the compiled protocol describes it. */
export interface Field {
  readonly name: string;
  readonly number: number;
  readonly label: string;
  /** The type of the field: "TYPE_STRING" and so on. */
  readonly type: string;
  /** The name of the type, where it is a message or an enumeration. */
  readonly typeName: string;
}

export interface MessageType {
  readonly name: string;
  readonly fields: readonly Field[];
  readonly nested: readonly MessageType[];
}

/** A call of a service, with the types of its request and its response. */
export interface Rpc {
  readonly service: string;
  readonly name: string;
  readonly request: MessageType;
  readonly response: MessageType;
}

const definition = loadDefinition({ keepCase: false });
const PACKAGE = "ferry.v1.";

/** Every call of every service of the protocol; a new call is in this list by itself. */
export function rpcs(): readonly Rpc[] {
  return Object.entries(definition).flatMap(([name, found]) => {
    if (!name.startsWith(PACKAGE) || "format" in found) return [];
    return Object.entries(found).map(([method, { requestType, responseType }]) => ({
      service: name.slice(PACKAGE.length),
      name: method,
      request: messageType(requestType.type),
      response: messageType(responseType.type),
    }));
  });
}

/** @returns the message of that name, in the scope of `within`; undefined where the name is an enumeration's */
export function findType(name: string, within: MessageType): MessageType | undefined {
  const nested = within.nested.find((one) => one.name === name);
  if (nested !== undefined) return nested;
  const found = definition[name.startsWith(".") ? name.slice(1) : `${PACKAGE}${name}`];
  if (found === undefined || typeof found.format !== "string") throw new TypeError(`no type ${name}`);
  return found.format === "Protocol Buffer 3 DescriptorProto" ? messageType(found.type) : undefined;
}

function messageType(given: object): MessageType {
  const { name, field, nestedType } = given as {
    readonly name: string;
    readonly field: readonly Field[];
    readonly nestedType: readonly object[];
  };
  return { name, fields: field, nested: nestedType.map(messageType) };
}
