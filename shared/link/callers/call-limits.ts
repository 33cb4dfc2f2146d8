/**
 * Limits the calls over connections of callers that were let in: how many calls a second a caller makes, and how many
 * streams of Health/Watch an agent serves (docs/design/security.md#connections). Streams of views have a limit of
 * their own (grpc/operator-streams.ts).
 */
import { ServerInterceptingCall, type ServerInterceptor } from "@grpc/grpc-js";
import { MigrationFault } from "../../fault.ts";
import { type Clock, systemClock } from "../../runtime/clock.ts";
import { toStatus } from "../wire/status.ts";
import type { ConnectionLimits, Counted } from "./connection-limits.ts";

/** The most streams of Health/Watch of an agent at the same time. A program that watches over a host needs one. */
export const HEALTH_WATCHES_MAX = 32;
/** How many calls of a connection are refused before the connection is ended: its caller does not listen. */
const REFUSED_MAX = 100;
/**
 * How long the request of a call may take to arrive, milliseconds. Without this bound a peer could keep the memory of
 * as many half requests as it has calls.
 */
const REQUEST_MS = 20_000;
/** The beginnings of the paths of calls in which the caller may go on sending requests for as long as it likes. */
const REFLECTION = "/grpc.reflection.";
const TRANSFER = "/ferry.v1.TransferService/";
const HEALTH_WATCH = "/grpc.health.v1.Health/Watch";

/** Makes the interceptor that counts calls and refuses those that are too many. */
export function limitingCalls(limits: ConnectionLimits, clock: Clock = systemClock): ServerInterceptor {
  const refused = new WeakMap<Counted, number>();
  const watches = { open: 0 };
  return ({ path }, call) => {
    const counted = limits.of(call.getPeer());
    const fault = tooMany(path, counted, watches.open);
    // a transfer is not counted, since its hello decides whether it is served, and for how long. Each of its frames
    // passes through every layer of interceptors, so a call that has a layer already gets no further one
    if (fault === undefined && path.startsWith(TRANSFER))
      return call instanceof ServerInterceptingCall ? call : new ServerInterceptingCall(call);
    if (fault === undefined) {
      // gRPC keeps what has arrived of a request for as long as its stream is open, so the connection ends as well
      const onLate = (): void => (counted === undefined ? call.sendStatus(toStatus(tooSlow())) : limits.end(counted));
      const late = path.startsWith(REFLECTION) ? undefined : clock.after(REQUEST_MS, onLate);
      late?.unref();
      const arrived = (): void => clock.cancel(late);
      return counting(call, path === HEALTH_WATCH ? watches : undefined, counted, arrived);
    }
    if (counted !== undefined) {
      const times = (refused.get(counted) ?? 0) + 1;
      refused.set(counted, times);
      if (times > REFUSED_MAX) limits.end(counted);
    }
    return refusing(call, fault);
  };
}

function tooMany(path: string, counted: Counted | undefined, watches: number): MigrationFault | undefined {
  if (counted?.rates.take(path) === false)
    return new MigrationFault("busy", "This caller makes more calls than this agent takes", {
      advice: "Ask less often",
    });
  if (path !== HEALTH_WATCH || watches < HEALTH_WATCHES_MAX) return undefined;
  return new MigrationFault("busy", `${HEALTH_WATCHES_MAX} callers watch the health of this agent already`, {
    advice: "Ask with Health/Check",
  });
}

type Call = Parameters<ServerInterceptor>[1];

function counting(
  call: Call,
  watches: { open: number } | undefined,
  counted: Counted | undefined,
  arrived: () => void,
): ServerInterceptingCall {
  if (counted !== undefined) counted.calls++;
  if (watches !== undefined) watches.open++;
  return new ServerInterceptingCall(call, {
    start: (next) =>
      next({
        // a call with one request is handled only when its caller has ended the request
        onReceiveHalfClose: (goOn) => {
          arrived();
          goOn();
        },
        // grpc-js calls this once, when the call is over, however it has ended
        onCancel: () => {
          arrived();
          if (counted !== undefined) counted.calls--;
          if (watches !== undefined) watches.open--;
        },
      }),
  });
}

const tooSlow = (): MigrationFault =>
  new MigrationFault("peer-invalid", `The request did not arrive within ${REQUEST_MS / 1000} s`);

/** Refuses a call with `fault`, so that nothing of the call reaches its handler. */
export const refusing = (call: Call, fault: MigrationFault): ServerInterceptingCall =>
  new ServerInterceptingCall(call, {
    start: (next) => {
      next({ onReceiveMetadata: () => {}, onReceiveMessage: () => {}, onReceiveHalfClose: () => {} });
      call.sendStatus(toStatus(fault));
    },
  });
