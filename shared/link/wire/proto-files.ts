/** Loads the service definitions of proto/, and makes methods of them whose messages are domain objects. */
import { join } from "node:path";
import { loadSync, type MethodDefinition, type PackageDefinition } from "@grpc/proto-loader";
import { protoPath } from "grpc-health-check";
import { MigrationFault } from "../../fault.ts";
import { packageRoot } from "../../runtime/package-root.ts";
import { checkEntries } from "./bounded-message.ts";

const folder = join(packageRoot(), "proto");

/** Loads every service that a server serves, including grpc.health.v1. */
export const loadDefinition = ({ keepCase }: { keepCase: boolean }): PackageDefinition =>
  loadSync(["ferry/v1/operator.proto", "ferry/v1/peer.proto", protoPath], {
    includeDirs: [folder],
    keepCase,
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
  });

const packageDefinition = loadDefinition({ keepCase: false });

/** Returns a method with the serialisers that proto-loader makes of the files. @throws TypeError for an unknown name */
export function methodOf(service: string, name: string): MethodDefinition<object, object> {
  const definition = packageDefinition[`ferry.v1.${service}`];
  if (definition === undefined || "format" in definition) throw new TypeError(`no service ${service}`);
  const method = definition[name];
  if (method === undefined) throw new TypeError(`no method ${service}.${name}`);
  return method;
}

/**
 * What arrived: a message, or the fault that tells what is wrong with it. The fault is a value, since grpc-js answers
 * "Error deserializing request" to everything that a deserialiser throws.
 */
export type Received<Message> = Message | MigrationFault;

export function orThrow<Message>(received: Received<Message>): Message {
  if (received instanceof MigrationFault) throw received;
  return received;
}

/** Calls `read`, and returns as a fault what it throws. An error that is no fault yet becomes `peer-invalid`. */
export function receive<Message>(read: () => Message): Received<Message> {
  try {
    return read();
  } catch (thrown) {
    if (thrown instanceof MigrationFault) return thrown;
    const text = thrown instanceof Error ? thrown.message : String(thrown);
    return new MigrationFault("peer-invalid", `The peer's message is no valid protobuf: ${text}`, { cause: thrown });
  }
}

/** A method whose messages are domain objects. Its serialisers translate between these and protobuf. */
export interface DomainMethod<Request, Response> {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly requestSerialize: (request: Request) => Buffer;
  readonly requestDeserialize: (bytes: Buffer) => Received<Request>;
  readonly responseSerialize: (response: Response) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Received<Response>;
  readonly originalName: string;
}

/** Translates between a domain object and the object that proto-loader makes of a message. */
export interface Translation<Domain> {
  readonly toWire: (domain: Domain) => object;
  readonly fromWire: (wire: object) => Domain;
}

/**
 * Makes a method of the protocol. What comes from an agent or an operator is bounded before it is decoded; the answers
 * to operators, who trust their agent, are not.
 */
export function domainMethod<Request, Response>(
  service: string,
  name: string,
  request: Translation<Request>,
  response: Translation<Response>,
): DomainMethod<Request, Response> {
  const method = methodOf(service, name);
  const asked = boundOf(method.requestType);
  const answered = service === "MigrationService" ? () => undefined : boundOf(method.responseType);
  return {
    path: method.path,
    requestStream: method.requestStream,
    responseStream: method.responseStream,
    requestSerialize: (domain) => method.requestSerialize(request.toWire(domain)),
    requestDeserialize: (bytes) =>
      receive(() => {
        asked(bytes);
        return request.fromWire(method.requestDeserialize(bytes));
      }),
    responseSerialize: (domain) => method.responseSerialize(response.toWire(domain)),
    responseDeserialize: (bytes) =>
      receive(() => {
        answered(bytes);
        return response.fromWire(method.responseDeserialize(bytes));
      }),
    originalName: name.charAt(0).toLowerCase() + name.slice(1),
  };
}

/** Makes the check of a message that is to be decoded. */
function boundOf({ type }: MethodDefinition<object, object>["requestType"]): (bytes: Uint8Array) => void {
  const name = "name" in type ? String(type.name) : "";
  return (bytes) => checkEntries(bytes, name);
}
