/** Asks an agent's health service (grpc.health.v1). */
import { Client, credentials } from "@grpc/grpc-js";
import { service } from "grpc-health-check";

const WITHIN_MS = 10_000;

/**
 * Asks for the health of an agent.
 * @param name the name of a service, or "" for the whole agent
 * @returns the status by its name in the protocol, such as "SERVING"
 */
export async function healthOf(address: string, name: string): Promise<string> {
  const check = service.Check;
  if (check === undefined) throw new TypeError("the health service has no Check");
  const client = new Client(address, credentials.createInsecure());
  try {
    return await new Promise((resolve, reject) => {
      client.makeUnaryRequest<object, { readonly status: string }>(
        check.path,
        check.requestSerialize,
        check.responseDeserialize as (bytes: Buffer) => { readonly status: string },
        { service: name },
        { deadline: Date.now() + WITHIN_MS },
        (error, answer) => {
          if (error !== null || answer === undefined) reject(error ?? new TypeError("no answer"));
          else resolve(answer.status);
        },
      );
    });
  } finally {
    client.close();
  }
}
