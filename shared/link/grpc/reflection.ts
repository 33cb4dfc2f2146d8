/**
 * Makes the service definitions that reflection shows. They have the field names of the .proto files, and names of map
 * entries that general clients accept: protobufjs names the entries of a map otherwise than protoc does, and buf and Go
 * refuse a file with such names.
 */
import type { AnyDefinition, EnumTypeDefinition, MessageTypeDefinition, PackageDefinition } from "@grpc/proto-loader";
import descriptor from "protobufjs/ext/descriptor/index.js";
import { loadDefinition } from "../wire/proto-files.ts";

/** What this file reads of google.protobuf.FileDescriptorProto and DescriptorProto. The rest is passed on unchanged. */
interface FileShape {
  messageType?: MessageShape[];
}

interface MessageShape {
  name?: string;
  field?: { name?: string; typeName?: string }[];
  nestedType?: MessageShape[];
  options?: { mapEntry?: boolean };
}

export function reflectedDefinition(): PackageDefinition {
  const definition = loadDefinition({ keepCase: true });
  const mended = new Map<Uint8Array, Buffer>();
  const mend = (file: Buffer): Buffer => {
    const known = mended.get(file) ?? mendFile(file);
    mended.set(file, known);
    return known;
  };
  return Object.fromEntries(
    Object.entries(definition).map(([name, one]) => [
      name,
      isType(one) ? { ...one, fileDescriptorProtos: one.fileDescriptorProtos.map(mend) } : one,
    ]),
  );
}

/** Tells a type from a service. A service has no list of files, but it may have a method with the name of that list. */
const isType = (one: AnyDefinition): one is MessageTypeDefinition<object, object> | EnumTypeDefinition =>
  Array.isArray(one.fileDescriptorProtos);

function mendFile(bytes: Buffer): Buffer {
  const type = descriptor.FileDescriptorProto;
  const file: FileShape = type.toObject(type.decode(bytes));
  for (const message of file.messageType ?? []) mendMaps(message);
  return Buffer.from(type.encode(type.fromObject(file)).finish());
}

function mendMaps(message: MessageShape): void {
  for (const nested of message.nestedType ?? []) {
    mendMaps(nested);
    if (nested.options?.mapEntry !== true) continue;
    const field = message.field?.find(({ typeName }) => typeName?.split(".").at(-1) === nested.name);
    if (field?.name === undefined) continue;
    nested.name = `${pascalCase(field.name)}Entry`;
    field.typeName = nested.name;
  }
}

const pascalCase = (name: string): string => name.replace(/(?:^|_)(\w)/g, (_, letter: string) => letter.toUpperCase());
