/**
 * The settings of the network: whom an agent serves at which address, in clear or over TLS, and how many connections it
 * takes. With TLS, callers are listed by the names in their certificates: agents in `tls.peers`, operators in
 * `tls.operators`. These two are the lists that the comments below speak of.
 */
import { resolve } from "node:path";
import { isWildcard, parseAddress } from "../../address.ts";
import { parseDuration } from "../../quantities.ts";
import { type Serving, servingMistake } from "../../serving.ts";
import { socketPathMistake } from "../../socket-path.ts";
import { atLeast, between, invalid } from "../config-checks.ts";
import type { TlsFiles } from "../files/certificates.ts";

/** How many connections an agent takes. shared/link/callers/connection-limits.ts enforces these limits. */
export interface ConnectionConfig {
  /**
   * The most connections at the same time: with TLS those of callers on a list, without TLS all connections in clear.
   * Connections of unix sockets are counted apart.
   */
  readonly max: number;
  /**
   * The most of these connections from one network, which is an IPv4 address or the first 64 bits of an IPv6 address.
   * With TLS, also the most of these connections whose certificates have the same name.
   */
  readonly perAddress: number;
  /** The most TLS handshakes a second with addresses from which no caller on a list has come lately. */
  readonly handshakesPerSecond: number;
  /** The longest life, milliseconds, of a connection over TLS whose caller is on the list of operators only. */
  readonly maxAgeMs: number;
}

/** The settings as the operator has written them. */
export interface GivenConnections {
  max: number;
  perAddress: number;
  handshakeRate: number;
  maxAge: string;
}

/** The settings of TLS. config-schema.ts documents each key. */
export interface TlsConfig {
  readonly files: TlsFiles;
  readonly peers: readonly string[];
  readonly operators: readonly string[];
  readonly strict: boolean;
}

export interface GivenTls {
  insecure: boolean;
  ca: string;
  certificate: string;
  key: string;
  peers: string[];
  operators: string[];
  strict: boolean;
}

/**
 * Compiles the settings of TLS. If a file or a list is set and one of the three files is missing, the settings are
 * refused: the agent must not serve in clear when its operator meant TLS. What the files hold is checked when they are
 * opened.
 * @returns undefined where no file and no list is set
 * @throws MigrationFault `configuration`
 */
export function tlsConfig({
  insecure,
  ca,
  certificate,
  key,
  peers,
  operators,
  strict,
}: GivenTls): TlsConfig | undefined {
  const files = { ca, certificate, key };
  const [given] =
    [...Object.entries(files), ...Object.entries({ peers, operators })].find(([, one]) => one.length > 0) ?? [];
  if (given === undefined) return undefined;
  for (const [name, path] of Object.entries(files))
    if (path === "")
      throw invalid(`tls.${name}`, `is missing beside tls.${given}`, "TLS needs tls.ca, tls.certificate and tls.key");
  if (insecure)
    throw invalid(
      "tls.insecure",
      "is set although TLS is configured",
      "Remove one: with TLS nothing over TCP is in clear",
    );
  return Object.freeze({
    files: Object.freeze({ ca: resolve(ca), certificate: resolve(certificate), key: resolve(key) }),
    peers: Object.freeze([...peers]),
    operators: Object.freeze([...operators]),
    strict,
  });
}

/**
 * Checks that each address may be served with this security, and that other agents can dial `advertise`. An agent that
 * listens at no address must not have set `advertise`.
 * @throws MigrationFault `configuration`
 */
export function checkAddresses(listen: readonly string[], advertise: string, security: Serving): void {
  if (listen.length === 0) {
    if (advertise !== "") throw invalid("advertise", `is ${advertise}, and listen is empty`, "Set listen too");
    return;
  }
  for (const [key, text] of [...listen.map((one) => ["listen", one] as const), ["advertise", advertise] as const]) {
    const mistake = servingMistake(parseAddress(text), security);
    if (mistake !== undefined) throw invalid(key, `has ${text}, which ${mistake.what}`, mistake.advice);
  }
  if (isWildcard(parseAddress(advertise)))
    throw invalid("advertise", `would be ${advertise}, which nobody can dial`, "Set it to this host's address");
}

/**
 * Compiles the path of the operators' socket.
 * @returns undefined where the operators of this host are to have no socket
 * @throws MigrationFault `configuration` for a path that is too long
 */
export function socketPath(text: string, runtimeDirectory: string): string | undefined {
  if (text === "") return undefined;
  const path = resolve(text.replaceAll("{runtime}", runtimeDirectory));
  const mistake = socketPathMistake(path);
  if (mistake === undefined) return path;
  throw invalid("operators.socket", mistake, "Set it, or runtimeDirectory, to a shorter path");
}

export const connections = (given: GivenConnections): ConnectionConfig => ({
  max: between("connections.max", given.max, 16, 10_000),
  perAddress: between("connections.perAddress", given.perAddress, 8, 10_000),
  handshakesPerSecond: between("connections.handshakeRate", given.handshakeRate, 1, 10_000),
  maxAgeMs: atLeast("connections.maxAge", parseDuration(given.maxAge), 1000, "ms"),
});
