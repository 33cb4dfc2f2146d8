/** Starts a destination's server that answers every offer with a refusal, and clients that make an offer. */
import type { Test } from "tap";
import { CONNECTION_DEFAULTS } from "../../shared/link/callers/connection-limits.ts";
import { connectDestination } from "../../shared/link/grpc/grpc-link.ts";
import { serveDestination } from "../../shared/link/grpc/grpc-server.ts";
import type { Caller, Listener } from "../../shared/link/link.ts";
import type { LinkSecurity } from "../../shared/link/tls/security.ts";
import type { HandshakeAnswer } from "../../shared/protocol/messages.ts";
import type { SettleAnswer } from "../../shared/protocol/stream-messages.ts";
import { type Clock, systemClock } from "../../shared/runtime/clock.ts";
import type { ConnectionConfig } from "../../shared/runtime/config/config-network.ts";
import { LIMITS, migrationOperator, portOf } from "./link.ts";
import { offer } from "./link-fixtures.ts";
import { Lines } from "./tls.ts";

/** The answer to every offer. */
export const refusals: HandshakeAnswer = { kind: "refusals", refusals: [] };

export interface Served extends Listener {
  /** The lines of the server's log. */
  readonly lines: Lines;
  /** The callers that have made an offer, as the log of an agent names them. */
  readonly callers: readonly string[];
  readonly port: number;
}

export async function destination(
  t: Test,
  at: LinkSecurity,
  connections: Partial<ConnectionConfig> = {},
  clock: Clock = systemClock,
): Promise<Served> {
  const lines = new Lines();
  const callers: string[] = [];
  const handshake = async (_: unknown, caller: Caller): Promise<HandshakeAnswer> => {
    callers.push(caller.text);
    return refusals;
  };
  const settle = async (): Promise<SettleAnswer> => ({ standing: "unknown", reason: "nothing was ever begun" });
  const limits = { ...LIMITS, security: { ...at, log: lines.log } };
  const listener = await serveDestination(
    { handshake, settle },
    { listen: ["127.0.0.1:0"], limits, connections: { ...CONNECTION_DEFAULTS, ...connections }, clock },
    migrationOperator({ listMigrations: () => [] }),
  );
  t.teardown(() => listener.close(0));
  return { ...listener, lines, callers, port: portOf(listener) };
}

/** Connects to a server and offers a guest. @returns the answer */
export async function shake(
  t: Test,
  address: string,
  as: LinkSecurity,
  { saying = offer, timeoutMs = 5000 } = {},
): Promise<HandshakeAnswer> {
  const client = connectDestination(address, { ...LIMITS, security: as });
  t.teardown(() => client.close());
  return (await client.handshake(saying, timeoutMs)).answer;
}
