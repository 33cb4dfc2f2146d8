/**
 * Opens the socket of a connection, in clear, to a unix socket or with TLS 1.3, and reads it into one buffer, which is
 * used again for every read. Who may be called, and what a certificate must show, is decided in tls/security.ts.
 */
import { connect, type OnReadOpts, type Socket } from "node:net";
import { type ConnectionOptions, connect as connectTls } from "node:tls";
import { type AgentAddress, parseAddress } from "../../address.ts";
import { named } from "../listen/zones.ts";
import type { TlsCall } from "../tls/security.ts";

/**
 * The most bytes of one read. A larger buffer brings no larger reads from a busy link, and would push the pages out of
 * the processor's cache; a smaller one costs a call of the kernel for every few pages.
 */
const READ_BYTES = 256 << 10;

/**
 * Begins to connect.
 * @param take takes what was read: the first `length` bytes of the buffer, which are valid until `take` returns
 */
export function openSocket(
  text: string,
  tls: TlsCall | undefined,
  take: (bytes: Buffer, length: number) => void,
): Socket {
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  const onread: OnReadOpts = {
    buffer,
    callback: (length) => {
      take(buffer, length);
      return true;
    },
  };
  const address = parseAddress(text);
  const socket = tls === undefined ? inClear(address, onread) : overTls(address, tls, onread);
  socket.setNoDelay(true);
  return socket;
}

const inClear = (address: AgentAddress, onread: OnReadOpts): Socket =>
  address.kind === "unix"
    ? connect({ path: address.path, onread })
    : connect({ host: named(address.host), port: address.port, onread });

function overTls(address: AgentAddress, { context, serverName, verify }: TlsCall, onread: OnReadOpts): Socket {
  const place = address.kind === "unix" ? { path: address.path } : { host: named(address.host), port: address.port };
  const options: ConnectionOptions = {
    ...place,
    secureContext: context,
    servername: serverName,
    checkServerIdentity: (_, certificate) => verify(certificate),
    rejectUnauthorized: true,
    ALPNProtocols: ["h2"],
  };
  // Node takes onread here too; its types do not know it
  return connectTls(Object.assign(options, { onread }));
}

/** Returns the `:authority` of a request to an address, in the form in which grpc-js sends it. */
export function authorityOf(text: string): string {
  const address = parseAddress(text);
  return address.kind === "unix" ? "localhost" : text.replace(/%[^\]]*/, "");
}
