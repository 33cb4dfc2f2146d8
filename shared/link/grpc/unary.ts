/** Makes the handlers of calls with one answer, for the servers of both agents. */
import type { handleUnaryCall, ServerUnaryCall } from "@grpc/grpc-js";
import { orThrow, type Received } from "../wire/proto-files.ts";
import { toStatus } from "../wire/status.ts";
import type { Gate } from "./gate.ts";

type Unary<Service> = <Request, Response>(
  handle: (service: Service, request: Request, call: ServerUnaryCall<Received<Request>, Response>) => Promise<Response>,
) => handleUnaryCall<Received<Request>, Response>;

/** Makes handlers that wait at `gate`. What `handle` throws becomes the status of the call. */
export const unaryBehind =
  <Service>(gate: Gate<Service>): Unary<Service> =>
  (handle) =>
  (call, callback) => {
    const answer = async (): ReturnType<typeof handle> => {
      const request = orThrow(call.request);
      return handle(await gate.pass(call), request, call);
    };
    answer().then(
      (response) => callback(null, response),
      (thrown: unknown) => callback(toStatus(thrown)),
    );
  };
