/**
 * A unix socket in front of a gRPC server (docs/design/security.md#operators-have-a-socket-of-their-own). Ferry opens
 * the socket itself, so that its permissions are right and each call shows who makes it: grpc-js tells nothing of the
 * caller at a unix socket.
 *
 * There are two kinds of socket. The operators' socket lets a group in, and serves no other agent. A socket of the
 * setting `listen` serves everything that an address in clear serves, to the agent's own user and to root.
 */
import { chmod, chown, lstat, rm, stat } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import {
  experimental,
  type Server,
  ServerCredentials,
  ServerInterceptingCall,
  type ServerInterceptor,
} from "@grpc/grpc-js";
import { MigrationFault } from "../../fault.ts";
import type { OperatorSocket } from "../../runtime/agent/operator-socket.ts";
import type { Clock } from "../../runtime/clock.ts";
import { listenWithMode } from "../../runtime/files/listen-with-mode.ts";
import { isLeftBehind } from "../../runtime/files/listened-at.ts";
import { peerCredentials } from "../../runtime/host/peer-credentials.ts";
import { isForOperators } from "../callers/authorise.ts";
import { refusing } from "../callers/call-limits.ts";
import { type InRoom, Room } from "../callers/connection-room.ts";
import { OpenSockets } from "./open-sockets.ts";

export interface UnixListener {
  /** Takes no connection any more, and removes the path. Open connections go on until the server ends them. */
  stop(): Promise<void>;
  /** Cuts the connections that are still open. */
  cut(): void;
}

export interface UnixSocketOptions {
  readonly path: string;
  /**
   * Set for the operators' socket, which serves operators alone: the group that it lets in beside the agent's own user.
   */
  readonly operators?: Pick<OperatorSocket, "group">;
  readonly clock: Clock;
}

/**
 * The most connections of a socket, from people and programs of this host. Each one costs a look at who the caller is.
 */
export const CONNECTIONS_MAX = 128;
/**
 * The most connections of one user, so that neither root nor another operator is kept out. The caller of a further
 * connection is told so, and the connection is cut.
 */
export const USER_CONNECTIONS_MAX = 48;
/** How long a caller whose user has too many connections has to read why its connection is not served, milliseconds. */
const CROWDED_MS = 5000;
/**
 * How many callers, of all users and of one user, are told at the same time why they are not served. The connections of
 * further callers are cut without an answer.
 */
const CROWD_MAX = 16;
const USER_CROWD_MAX = 4;
const OWNER_ONLY = 0o600;
const OWNER_AND_GROUP = 0o660;

/** Opens a unix socket. @throws the error of listen(), chown() or chmod() */
export async function listenUnix(server: Server, { path, operators, clock }: UnixSocketOptions): Promise<UnixListener> {
  await removeStaleSocket(path);
  const injector = server.createConnectionInjector(
    experimental.createServerCredentialsWithInterceptors(
      ServerCredentials.createInsecure(),
      operators === undefined ? [] : [operatorsOnly(path)],
    ),
  );
  const crowded = server.createConnectionInjector(
    experimental.createServerCredentialsWithInterceptors(ServerCredentials.createInsecure(), [tooMany(path)]),
  );
  const sockets = new OpenSockets();
  const room = new Room<InRoom>({ max: CONNECTIONS_MAX, perGroup: USER_CONNECTIONS_MAX });
  const crowd = new Room<InRoom>({ max: CROWD_MAX, perGroup: USER_CROWD_MAX });
  const listener = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    void showCaller(socket, operators !== undefined).then((user) => {
      if (socket.destroyed) return;
      const one: InRoom = { groups: [user], isKept: true };
      if (room.hasRoomFor(one.groups)) {
        room.add(one);
        socket.once("close", () => room.delete(one));
        return injector.injectConnection(socket);
      }
      if (!crowd.hasRoomFor(one.groups)) return socket.destroy();
      crowd.add(one);
      socket.once("close", () => crowd.delete(one));
      crowded.injectConnection(socket);
      clock.after(CROWDED_MS, () => socket.destroy()).unref();
    });
  });
  listener.maxConnections = CONNECTIONS_MAX + CROWD_MAX;
  await listenWithMode(listener, path, OWNER_ONLY);
  const stop = async (): Promise<void> => {
    listener.close();
    await rm(path, { force: true });
  };
  try {
    const group = operators?.group;
    // in a directory with the set-group-ID bit the socket got the directory's group, which may be this group already
    if (group !== undefined && (await lstat(path)).gid !== group) await chown(path, -1, group);
    if (operators !== undefined) await chmod(path, OWNER_AND_GROUP);
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  return {
    stop,
    cut: () => sockets.cut(),
  };
}

const LOCAL = "a unix socket, user ";

/** True if the peer that grpc-js shows for a call is a caller at a unix socket. */
export const isLocal = (peer: string): boolean => peer.startsWith(LOCAL);

/**
 * Lets grpc-js show the caller at a unix socket. grpc-js shows the `remoteAddress` and the `remotePort` of a call's
 * socket, which a unix socket does not have. Here the socket gets both: the user, and the number of the process.
 * @param isShared whether others than root and the agent's own user may connect; if not, the kernel is not asked which
 *   of these two the caller is
 * @returns the user
 */
async function showCaller(socket: Socket, isShared: boolean): Promise<string> {
  const caller = isShared ? await peerCredentials(socket) : undefined;
  const who =
    caller === undefined
      ? isShared
        ? "unknown"
        : "root or the agent's own"
      : caller.user === ""
        ? `${caller.uid}`
        : `${caller.uid} (${caller.user})`;
  Object.defineProperty(socket, "remoteAddress", { value: `${LOCAL}${who}, process` });
  Object.defineProperty(socket, "remotePort", { value: caller?.pid ?? 0 });
  return who;
}

const tooMany =
  (path: string): ServerInterceptor =>
  (_method, call) => {
    const what = `Your user has ${USER_CONNECTIONS_MAX} connections to unix:${path} already, and gets no more`;
    return refusing(call, new MigrationFault("busy", what, { advice: "End some of them, and call again" }));
  };

/**
 * Makes the interceptor that refuses calls of the services that agents serve to each other: an operator who may migrate
 * guests need not be able to offer an invented guest, as an agent could.
 */
const operatorsOnly =
  (path: string): ServerInterceptor =>
  (method, call) => {
    if (isForOperators(method.path)) return new ServerInterceptingCall(call);
    const fault = new MigrationFault(
      "not-authorised",
      `${method.path} is not for operators, whom unix:${path} serves`,
      {
        advice: "An agent calls the other agent by an address that is in the other agent's setting listen",
      },
    );
    return refusing(call, fault);
  };

/**
 * Removes a socket that a killed agent left behind. A path that is no socket, or at which a program still listens,
 * stays, and binding it fails.
 */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isSocket() && (await isLeftBehind(path))) await rm(path, { force: true });
}
