/** Remembers the open connections of a listener, so that they can be cut when the server ends. */
import type { Socket } from "node:net";

export class OpenSockets {
  private readonly sockets = new Set<Socket>();

  /** Follows a connection until it has closed. */
  add(socket: Socket): void {
    this.sockets.add(socket);
    socket.once("close", () => this.sockets.delete(socket));
  }

  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }
}
