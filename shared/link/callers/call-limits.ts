/**
 * Limits the calls over connections of callers that were let in: how many calls a second a connection makes, and how
 * many streams of Health/Watch an agent serves (docs/design/security.md#connections). Streams of views have a limit of
 * their own (grpc/operator-streams.ts).
 */
import { ServerInterceptingCall, type ServerInterceptor } from "@grpc/grpc-js";
import { MigrationFault } from "../../fault.ts";
import { toStatus } from "../wire/status.ts";
import type { ConnectionLimits, Counted } from "./connection-limits.ts";

/** The most streams of Health/Watch of an agent at the same time. A program that watches over a host needs one. */
export const HEALTH_WATCHES_MAX = 32;
/** How many calls of a connection are refused before the connection is ended: its caller does not listen. */
const REFUSED_MAX = 100;
const TRANSFER = "/ferry.v1.TransferService/";
const HEALTH_WATCH = "/grpc.health.v1.Health/Watch";

/** Makes the interceptor that counts calls and refuses those that are too many. */
export function limitingCalls(limits: ConnectionLimits): ServerInterceptor {
  const refused = new WeakMap<Counted, number>();
  const watches = { open: 0 };
  return ({ path }, call) => {
    const counted = limits.of(call.getPeer());
    const fault = tooMany(path, counted, watches.open);
    // a transfer is not counted, since its hello decides whether it is served, and for how long. Frames pass through
    // one layer of interceptors at most
    if (fault === undefined && path.startsWith(TRANSFER))
      return call instanceof ServerInterceptingCall ? call : new ServerInterceptingCall(call);
    if (fault === undefined) return counting(call, path === HEALTH_WATCH ? watches : undefined, counted);
    if (counted !== undefined) {
      const times = (refused.get(counted) ?? 0) + 1;
      refused.set(counted, times);
      if (times > REFUSED_MAX) limits.end(counted);
    }
    return refusing(call, fault);
  };
}

function tooMany(path: string, counted: Counted | undefined, watches: number): MigrationFault | undefined {
  if (counted?.callRate.take() === false)
    return new MigrationFault("busy", "This connection makes more calls than this agent takes", {
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
): ServerInterceptingCall {
  if (counted !== undefined) counted.calls++;
  if (watches !== undefined) watches.open++;
  return new ServerInterceptingCall(call, {
    start: (next) =>
      next({
        // grpc-js calls this once, when the call is over, however it has ended
        onCancel: () => {
          if (counted !== undefined) counted.calls--;
          if (watches !== undefined) watches.open--;
        },
      }),
  });
}

/** Refuses a call with `fault`, so that nothing of the call reaches its handler. */
export const refusing = (call: Call, fault: MigrationFault): ServerInterceptingCall =>
  new ServerInterceptingCall(call, {
    start: (next) => {
      next({ onReceiveMetadata: () => {}, onReceiveMessage: () => {}, onReceiveHalfClose: () => {} });
      call.sendStatus(toStatus(fault));
    },
  });
