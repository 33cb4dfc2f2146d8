/** The service definitions of proto/, as grpc-js takes them, with serialisers for plain objects. */
import { join } from "node:path";
import { loadSync, type MethodDefinition, type PackageDefinition } from "@grpc/proto-loader";
import { protoPath } from "grpc-health-check";
import { MigrationFault } from "../../fault.ts";
import { packageRoot } from "../../runtime/package-root.ts";

const folder = join(packageRoot(), "proto");

/** Everything that a server serves, grpc.health.v1 too. */
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

/** A method with the serialisers that are made from the files. @throws TypeError when there is none of that name */
export function methodOf(service: string, name: string): MethodDefinition<object, object> {
  const definition = packageDefinition[`ferry.v1.${service}`];
  if (definition === undefined || "format" in definition) throw new TypeError(`no service ${service}`);
  const method = definition[name];
  if (method === undefined) throw new TypeError(`no method ${service}.${name}`);
  return method;
}

/**
 * What arrived: a message, or what is wrong with it. A value, since grpc-js answers "Error deserializing request" to
 * whatever a deserialiser throws.
 */
export type Received<Message> = Message | MigrationFault;

export function orThrow<Message>(received: Received<Message>): Message {
  if (received instanceof MigrationFault) throw received;
  return received;
}

/** Reads what arrived; what it throws is the peer's fault. */
export function receive<Message>(read: () => Message): Received<Message> {
  try {
    return read();
  } catch (thrown) {
    if (thrown instanceof MigrationFault) return thrown;
    const text = thrown instanceof Error ? thrown.message : String(thrown);
    return new MigrationFault("peer-invalid", `The peer's message is no valid protobuf: ${text}`, { cause: thrown });
  }
}

/** A method whose messages are domain objects: `toWire` and `fromWire` translate at the border. */
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

export interface Translation<Domain> {
  readonly toWire: (domain: Domain) => object;
  readonly fromWire: (wire: object) => Domain;
}

export function domainMethod<Request, Response>(
  service: string,
  name: string,
  request: Translation<Request>,
  response: Translation<Response>,
): DomainMethod<Request, Response> {
  const method = methodOf(service, name);
  return {
    path: method.path,
    requestStream: method.requestStream,
    responseStream: method.responseStream,
    requestSerialize: (domain) => method.requestSerialize(request.toWire(domain)),
    requestDeserialize: (bytes) => receive(() => request.fromWire(method.requestDeserialize(bytes))),
    responseSerialize: (domain) => method.responseSerialize(response.toWire(domain)),
    responseDeserialize: (bytes) => receive(() => response.fromWire(method.responseDeserialize(bytes))),
    originalName: name.charAt(0).toLowerCase() + name.slice(1),
  };
}
