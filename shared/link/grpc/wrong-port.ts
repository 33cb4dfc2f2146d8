/**
 * Finds out what answers at an address that does not have the service that was called. It may be the other agent of
 * that host, as when the ports of both were mixed up, or a program that is no agent. Every agent tells by
 * grpc.health.v1 which services it has.
 */
import { type Client, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { MigrationFault } from "../../fault.ts";
import { systemClock } from "../../runtime/clock.ts";
import type { Dialled } from "../tls/connection-fault.ts";
import { fromStatus } from "../wire/status.ts";

/** The kind of agent that the caller wants; `either` for a service that both kinds have. */
export type WantedAgent = "destination" | "either";

/** For each kind of agent, a service that the other kind does not have. */
const SERVICES = { source: "ferry.v1.TransferService", destination: "ferry.v1.DestinationService" } as const;
/** How long the question for the health of a service may take, milliseconds. */
const ANSWERS_WITHIN_MS = 2000;
const PORTS =
  "Check host and port: ferry-source listens at port 7411 and ferry-destination at 7412 unless told otherwise";

/**
 * Makes the fault of a call that failed. If the program that answered lacks the service, this function first asks it
 * which services it has.
 */
export async function callFault(
  error: ServiceError,
  client: Client,
  dialled: Dialled,
  wanted: WantedAgent,
): Promise<MigrationFault> {
  const fault = fromStatus(error, "peer-unreachable", dialled);
  const { address } = dialled;
  if (error.code === status.UNAVAILABLE && error.details.includes("Protocol error"))
    return new MigrationFault("peer-unreachable", `What answers at ${address} is no agent: it does not speak gRPC`, {
      cause: error,
      advice: PORTS,
    });
  // an agent that does not support what it is asked names a code of its own
  if (error.code !== status.UNIMPLEMENTED || fault.code !== "peer-invalid") return fault;
  const [isSource, isDestination] = await Promise.all([
    has(client, SERVICES.source),
    has(client, SERVICES.destination),
  ]);
  if (wanted === "destination" && isSource)
    return new MigrationFault("peer-unreachable", `${address} is a source agent's address, not a destination agent's`, {
      cause: error,
      advice: "Give the address of ferry-destination there, which listens at port 7412 unless it was told otherwise",
    });
  // an agent of another version lacks the method
  if (isSource || isDestination) return fault;
  return new MigrationFault("peer-unreachable", `What answers at ${address} is no agent: ${fault.message}`, {
    cause: error,
    advice: PORTS,
  });
}

/** Asks an agent for the health of a service. @returns false for any error, as for a service that the agent lacks */
function has(client: Client, service: string): Promise<boolean> {
  const name = Buffer.from(service);
  // HealthCheckRequest has the name of the service as field 1
  const request = Buffer.concat([Buffer.from([0x0a, name.length]), name]);
  const bytes = (given: Buffer): Buffer => given;
  const options = { deadline: systemClock.nowUs() / 1000 + ANSWERS_WITHIN_MS };
  return new Promise((resolve) => {
    const done = (error: ServiceError | null): void => resolve(error === null);
    client.makeUnaryRequest("/grpc.health.v1.Health/Check", bytes, bytes, request, new Metadata(), options, done);
  });
}
